"""Images that libjxl up to 0.11.2 does not keep at effort 1, or that it writes behind the end of its memory."""

import os
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from vrekit.codecs.registry import codec_from_config

MULTIPLIER = 2654435761  # of the hash that libjxl's fast mode keeps colours by


def colours_of_one_hash(channels: int) -> NDArray[np.uint8]:
    colours = np.random.default_rng(0).integers(0, 256, (2000, channels), np.uint8)
    packed = colours.astype(np.uint64) @ (1 << 8 * np.arange(channels, dtype=np.uint64))
    hashes = (packed * MULTIPLIER & 0xFFFFFFFF) >> 16
    return next(
        colours[[i, j]]
        for value in np.unique(hashes)
        for i, j in combinations(np.flatnonzero(hashes == value), 2)
        if packed[i] != packed[j]
    )


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("effort", [1, 2, 7])
@pytest.mark.parametrize(("height", "width"), [(1, 16), (16, 18), (40, 700), (540, 960)])
def test_two_colours_of_one_hash(height: int, width: int, effort: int, channels: int) -> None:
    codec = codec_from_config({"id": "jxl", "effort": effort})
    image = np.zeros((height, width, channels), np.uint8)
    image[height // 2, :2] = colours_of_one_hash(channels)
    back = codec.decode(codec.encode(image), dtype=image.dtype, shape=image.shape)
    np.testing.assert_array_equal(back, image)


def test_colours_with_long_numbers() -> None:
    generator = np.random.default_rng([224, 4, 5])  # of thousands, one that libjxl 0.11.2 spoils
    image = np.zeros((153, 326, 4), np.uint8)
    dots = generator.random(image.shape[:2]) < 0.01
    image[dots] = generator.integers(0, 256, (int(dots.sum()), 4), np.uint8)
    codec = codec_from_config("jxl")
    back = codec.decode(codec.encode(image), dtype=image.dtype, shape=image.shape)
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize("codec_id", ["jxl", "png", "webp", "rgb-delta"])
@pytest.mark.parametrize(("count", "height", "width"), [(600, 16, 18), (200, 48, 260)])
def test_noise(codec_id: str, count: int, height: int, width: int) -> None:
    codec = codec_from_config(codec_id)
    for image in np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8):
        back = codec.decode(codec.encode(image), dtype=image.dtype, shape=image.shape)
        np.testing.assert_array_equal(back, image)


SPOILS_THE_HEAP = """
import numpy as np
from vrekit.codecs.registry import codec_from_config
codec = codec_from_config("jxl")
generator = np.random.default_rng(0)
for shape in [(250, 250), (256, 256, 3), (130, 256, 4), (200, 600, 3)]:
    for _ in range(10):
        image = generator.integers(0, 1 << 16, shape, np.uint16)
        image[::2] = generator.choice([0, 65535], image[::2].shape)
        back = codec.decode(codec.encode(image), dtype=image.dtype, shape=image.shape)
        assert np.array_equal(back, image)
print("kept")
"""


def test_incompressible_images_of_16_bits() -> None:
    environment = {**os.environ, "MALLOC_CHECK_": "3"}  # glibc looks after its heap
    done = subprocess.run(
        [sys.executable, "-c", SPOILS_THE_HEAP], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr
