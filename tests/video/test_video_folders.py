"""Folders of images and arrays, arrays in memory and in files, and what `open_source` makes of a path."""

import io
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.video.video_clips import clip, ffmpeg_frames, need_encoder, run_ffmpeg
from vrekit.core.errors import UsageError, VideoError, VrekitError
from vrekit.video.arrays import ArraySource
from vrekit.video.base import VideoSource
from vrekit.video.files import FileSource
from vrekit.video.folders import ArrayFolderSource, ImageFolderSource
from vrekit.video.opener import open_source
from vrekit.video.pictures import several_pictures


def picture(seed: int, height: int = 12, width: int = 17) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(path: Path, rgb: NDArray[Any]) -> None:
    assert cv2.imwrite(str(path), np.ascontiguousarray(rgb[..., ::-1]))


def test_image_folder_keeps_sparse_numbers(tmp_path: Path) -> None:
    pictures = {number: picture(number) for number in (5, 8, 22)}
    for number, rgb in pictures.items():
        save(tmp_path / f"cam2_frame_{number:04d}.png", rgb)
    (tmp_path / "notes.txt").write_text("ignored")
    (tmp_path / ".hidden_7.png").write_bytes(b"ignored")
    with ImageFolderSource(tmp_path, fps=10) as source:
        assert source.frame_indices.tolist() == [5, 8, 22]
        batch = source.read([5, 22])
        assert batch.indices.tolist() == [5, 22]
        np.testing.assert_array_equal(batch.frames, np.stack([pictures[5], pictures[22]]))
        assert source.pts_seconds(np.array([5, 22])).tolist() == [0.5, 2.2]
        info = source.info
        assert (info.source, info.frame_count, info.height, info.width) == ("images", 3, 12, 17)
        assert (info.fps, info.duration_seconds) == (10.0, 2.3)
        with pytest.raises(UsageError, match="no frame 6"):
            source.read([6])


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "webp", "jpg", "JPEG"])
def test_image_formats(tmp_path: Path, suffix: str) -> None:
    smooth = cv2.GaussianBlur(picture(1, 64, 48), (15, 15), 4)
    save(tmp_path / f"0.{suffix}", smooth)
    with ImageFolderSource(tmp_path) as source:
        frame = source.read([0]).frames[0]
        assert np.isnan(source.pts_seconds(np.array([0]))).all()
    tolerance = 12 if suffix in ("webp", "jpg", "JPEG") else 0
    assert np.abs(frame.astype(int) - smooth).max() <= tolerance


def test_gray_alpha_and_16_bit_images(tmp_path: Path) -> None:
    rgb = picture(2)
    cv2.imwrite(str(tmp_path / "0.png"), rgb[..., 0])
    alpha = np.random.default_rng(0).integers(0, 256, rgb.shape[:2], np.uint8)
    cv2.imwrite(str(tmp_path / "1.png"), np.dstack([rgb[..., ::-1], alpha]))
    save(tmp_path / "2.png", np.clip(rgb.astype(np.int32) * 257 - 100, 0, None).astype(np.uint16))
    save(tmp_path / "3.tif", rgb.astype(np.float32) / 255)
    with ImageFolderSource(tmp_path) as source:
        frames = source.read([0, 1, 2, 3]).frames
    np.testing.assert_array_equal(frames[0], np.repeat(rgb[..., :1], 3, axis=2))
    for frame in frames[1:]:
        np.testing.assert_array_equal(frame, rgb)


def test_damaged_and_odd_files_fail_alone(tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / f"{number}.png", picture(number))
    (tmp_path / "0.png").write_bytes(b"")
    content = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "3.png").write_text("not an image")
    save(tmp_path / "4.png", picture(4, 30, 20))
    with ImageFolderSource(tmp_path) as source:
        batch = source.read(range(6))
        assert batch.indices.tolist() == [1, 5]
        np.testing.assert_array_equal(batch.frames, np.stack([picture(1), picture(5)]))
        assert sorted(batch.failures) == [0, 2, 3, 4]
        assert "4.png: 20x30, the others are 17x12" in batch.failures[4]
        assert all("not readable as an image" in batch.failures[number] for number in (0, 2, 3))
        (tmp_path / "5.png").unlink()
        assert "5.png" in source.read([5]).failures[5]


def test_names_without_numbers_are_sorted(tmp_path: Path) -> None:
    for name, seed in (("left", 1), ("centre", 0), ("right", 2)):
        save(tmp_path / f"{name}.png", picture(seed))
    with ImageFolderSource(tmp_path) as source:
        np.testing.assert_array_equal(source.read(range(3)).frames, np.stack([picture(seed) for seed in range(3)]))


def test_unclear_numbers_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a_1.png", picture(1))
    save(tmp_path / "b_01.png", picture(1))
    with pytest.raises(VideoError, match=r"a_1\.png and b_01\.png are both frame 1"):
        ImageFolderSource(tmp_path)
    (tmp_path / "b_01.png").rename(tmp_path / "cover.png")
    with pytest.raises(VideoError, match=r"cover\.png has no frame number"):
        ImageFolderSource(tmp_path)


def test_folder_without_a_readable_file(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no")
    with pytest.raises(VideoError, match="none of its 1 files can be read"):
        ImageFolderSource(tmp_path)


def test_array_folder_reads_what_vre_wrote(tmp_path: Path) -> None:
    np.savez(tmp_path / "3.npz", picture(3))  # key arr_0
    np.save(tmp_path / "12.npy", picture(12))
    np.save(tmp_path / "20.npy", picture(20).astype(np.float32) / 255)
    np.savez_compressed(tmp_path / "21.npz", rgb=picture(21).astype(np.float64) / 255)
    with ArrayFolderSource(tmp_path) as source:
        batch = source.read([3, 12, 20, 21])
        assert source.info.source == "arrays"
    assert not batch.failures
    np.testing.assert_array_equal(batch.frames, np.stack([picture(seed) for seed in (3, 12, 20, 21)]))


def test_array_folder_failures(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", picture(0))
    np.save(tmp_path / "1.npy", np.full((12, 17, 3), 1.5, np.float32))
    np.save(tmp_path / "2.npy", np.full((12, 17, 3), np.nan))
    np.save(tmp_path / "3.npy", np.zeros((12, 17), np.uint8))
    np.save(tmp_path / "4.npy", np.zeros((12, 17, 3), np.int32))
    np.save(tmp_path / "5.npy", np.array([{"a": 1}], object), allow_pickle=True)
    np.savez(tmp_path / "6.npz", a=picture(1), b=picture(2))
    (tmp_path / "7.npy").write_bytes((tmp_path / "0.npy").read_bytes()[:200])
    (tmp_path / "8.npz").write_bytes(b"PK nothing")
    with ArrayFolderSource(tmp_path) as source:
        batch = source.read(range(9))
    assert batch.indices.tolist() == [0]
    expected = {1: "0..1", 2: "0..1", 3: "height, width, 3", 4: "int32", 5: "pickle", 6: "2 arrays", 7: "", 8: ""}
    assert batch.failures.keys() == expected.keys()
    for number, words in expected.items():
        assert words in batch.failures[number]
        assert f"{number}.np" in batch.failures[number]


def test_array_in_memory() -> None:
    frames = np.stack([picture(seed) for seed in range(5)])
    with open_source(frames, fps=4) as source:
        assert isinstance(source, ArraySource)
        batch = source.read([1, 2])
        np.testing.assert_array_equal(batch.frames, frames[1:3])
        batch.frames[:] = 0
        np.testing.assert_array_equal(frames[1], picture(1))
        np.testing.assert_array_equal(source.read([0, 4]).frames, frames[[0, 4]])
        assert source.pts_seconds(np.array([0, 3])).tolist() == [0.0, 0.75]
        assert (source.info.source, source.info.uri, source.info.duration_seconds) == ("memory", "memory", 1.25)
    with pytest.raises(VideoError, match="closed"):
        source.read([0])


def test_array_with_numbers_and_floats() -> None:
    floats = np.stack([picture(seed) for seed in range(3)]).astype(np.float32) / 255
    floats[1, 0, 0, 0] = 1.01
    with ArraySource(floats, frame_indices=[5, 8, 22]) as source:
        batch = source.read([5, 8, 22])
        assert batch.indices.tolist() == [5, 22]
        np.testing.assert_array_equal(batch.frames, np.stack([picture(0), picture(2)]))
        assert "0..1" in batch.failures[8]
        assert np.isnan(source.pts_seconds(np.array([5]))).all()


@pytest.mark.parametrize("numbers", [[1, 1, 2], [2, 1, 3], [-1, 0, 1], [0, 1], [0.0, 1.0, 2.0]])
def test_wrong_frame_numbers(numbers: list[int]) -> None:
    with pytest.raises(UsageError, match="frame_indices"):
        ArraySource(np.zeros((3, 4, 4, 3), np.uint8), frame_indices=numbers)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((4, 4, 3), np.uint8, "shape"),
        ((2, 3, 4, 4), np.uint8, "shape"),
        ((0, 4, 4, 3), np.uint8, "shape"),
        ((2, 4, 4, 3), np.int16, "int16"),
        ((2, 4, 4, 3), np.bool_, "bool"),
    ],
)
def test_arrays_that_are_no_video(shape: tuple[int, ...], dtype: type[np.generic], message: str) -> None:
    with pytest.raises(VideoError, match=message):
        ArraySource(np.zeros(shape, dtype))


def test_clip_in_an_array_file(tmp_path: Path) -> None:
    frames = np.stack([picture(seed) for seed in range(4)])
    np.save(tmp_path / "clip.npy", frames)
    np.savez_compressed(tmp_path / "clip.npz", frames)
    for name in ("clip.npy", "clip.npz"):
        with open_source(tmp_path / name) as source:
            np.testing.assert_array_equal(source.read(range(4)).frames, frames)
            assert (source.info.source, source.info.uri) == ("arrays", str(tmp_path / name))
    (tmp_path / "clip.npy").write_bytes((tmp_path / "clip.npy").read_bytes()[:-10])
    with pytest.raises(VideoError, match="cannot be read as an array"):
        open_source(tmp_path / "clip.npy")


def test_open_source_picks_by_content(tmp_path: Path) -> None:
    images, arrays = tmp_path / "images", tmp_path / "arrays"
    images.mkdir()
    arrays.mkdir()
    save(images / "0.png", picture(0))
    np.save(arrays / "0.npy", picture(0))
    video = tmp_path / "a_video_without_suffix"
    video.write_bytes(clip("h264_bframes.mp4").read_bytes())
    expected: list[tuple[Path, type[VideoSource]]] = [
        (images, ImageFolderSource),
        (arrays, ArrayFolderSource),
        (video, FileSource),
    ]
    for path, kind in expected:
        with open_source(str(path)) as source:
            assert type(source) is kind


def test_open_source_refuses(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("x")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    save(mixed / "0.png", picture(0))
    np.save(mixed / "1.npy", picture(0))
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "dataset.json").write_text("{}")
    (tmp_path / "notes.mp4").write_text("hello")
    (tmp_path / "nothing.mp4").write_bytes(b"")
    (tmp_path / "subtitles.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhi\n")
    for name, message in {
        "missing.mp4": "no such file or folder",
        "empty": "the folder is empty",
        "text": "holds no frames",
        "mixed": "mixes images and arrays",
        "dataset": "this is a vrekit dataset",
        "notes.mp4": "cannot be opened as a video",
        "nothing.mp4": "cannot be opened as a video",
        "subtitles.srt": "there is no video in this file",
    }.items():
        with pytest.raises(VideoError, match=message) as caught:
            open_source(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert caught.value.hint


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    save(tmp_path / "0.png", picture(0))
    array = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(UsageError, match="its own clock"):
        open_source(clip("h264_bframes.mp4"), fps=10)
    with pytest.raises(UsageError, match="no streams"):
        open_source(tmp_path, stream_index=0)
    with pytest.raises(UsageError, match="no streams"):
        open_source(array, stream_index=1)
    for wrong in (0.0, -3.0, float("nan")):
        with pytest.raises(UsageError, match="fps must be a positive number"):
            open_source(array, fps=wrong)
        with pytest.raises(VrekitError, match="fps must be a positive number"):
            open_source(tmp_path, fps=wrong)


def test_only_video_files_load_torchcodec(tmp_path: Path) -> None:
    save(tmp_path / "0.png", picture(0))
    with zipfile.ZipFile(tmp_path / "ignored.zip", "w"):
        pass
    code = (
        "import sys\nfrom vrekit.video.opener import open_source\n"
        "assert not {'torch', 'torchcodec', 'cv2'} & set(sys.modules)\n"
        "open_source(sys.argv[1]).read([0])\n"
        "assert not {'torch', 'torchcodec'} & set(sys.modules)\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(root)}, check=True)


def animation(path: Path, *options: str) -> Path:
    source = "-f lavfi -i testsrc2=size=64x48:rate=10 -frames:v 5"
    run_ffmpeg(*source.split(), *options, str(path))
    return path


def several(folder: Path) -> dict[str, Path]:
    """Return a file of each kind that holds several pictures."""
    need_encoder("libwebp_anim")
    pages = folder / "7.tiff"
    cv2.imwritemulti(str(pages), [picture(number) for number in range(3)])
    return {
        "animated PNG": animation(folder / "1.png", "-f", "apng"),
        "animated WebP": animation(folder / "2.webp", "-c:v", "libwebp_anim"),
        "TIFF with several pages": pages,
    }


def test_a_file_with_several_pictures_is_no_frame(tmp_path: Path) -> None:
    kinds = several(tmp_path)
    for number in (0, 3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((48, 64, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "4.tiff"), np.zeros((48, 64, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "5.webp"), np.zeros((48, 64, 3), np.uint8))
    with open_source(tmp_path) as source:
        batch = source.read([0, 1, 2, 3, 4, 5, 7])
    assert batch.indices.tolist() == [0, 3, 4, 5]
    assert sorted(batch.failures) == [1, 2, 7]
    for kind, path in kinds.items():
        reason = batch.failures[int(path.stem)]
        assert reason == f"{path}: {kind}: a frame is one picture"


def test_animations_as_videos_give_all_frames_or_say_why_not(tmp_path: Path) -> None:
    kinds = several(tmp_path)
    for path in (animation(tmp_path / "a.gif"), kinds.pop("animated PNG")):
        with open_source(path) as source:
            assert source.info.frame_count == 5
            frames = source.read(range(5)).frames
        np.testing.assert_array_equal(frames, ffmpeg_frames(path, 0, 48, 64))
    for kind, path in kinds.items():
        with pytest.raises(VideoError, match=f"{kind}, which FFmpeg does not read in full") as caught:
            open_source(path)
        assert "PNG files in a folder" in str(caught.value.hint)
    heic = tmp_path / "a.heic"
    heic.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(VideoError, match="a HEIC picture, which FFmpeg does not read in full"):
        open_source(heic)


def test_a_folder_of_pictures_that_are_not_read_names_them(tmp_path: Path) -> None:
    for name in ("0.heic", "1.HEIC", "2.avif"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(VideoError, match=r"holds no frames, only \.avif \.heic files"):
        open_source(tmp_path)


def test_previews_in_a_tiff_are_no_pages() -> None:
    def page(following: int, *, is_preview: bool) -> bytes:
        tag = struct.pack("<HHII", 254, 4, 1, int(is_preview))
        return struct.pack("<H", 1) + tag + struct.pack("<I", following)

    head = b"II*\0" + struct.pack("<I", 8)
    first, second = page(26, is_preview=False), page(0, is_preview=True)
    assert several_pictures(io.BytesIO(head + first + second)) is None
    assert several_pictures(io.BytesIO(head + first + page(0, is_preview=False))) == "TIFF with several pages"
    assert several_pictures(io.BytesIO(head + page(8, is_preview=False))) == "TIFF with several pages"  # a circle
