"""Pictures of few colours: libjxl up to 0.11 loses a pixel where two colours have one hash value (its change #4291)."""

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


@pytest.mark.parametrize("codec_id", ["jxl", "png", "webp", "rgb-delta"])
def test_noise_of_few_pixels(codec_id: str) -> None:
    codec = codec_from_config(codec_id)
    for image in np.random.default_rng(0).integers(0, 256, (600, 16, 18, 3), np.uint8):
        back = codec.decode(codec.encode(image), dtype=image.dtype, shape=image.shape)
        np.testing.assert_array_equal(back, image)
