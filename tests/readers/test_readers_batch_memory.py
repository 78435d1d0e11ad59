"""Memory of large batches: nothing else gets it while anything looks at it, and the next batch does afterwards."""

import gc
import mmap
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch

from tests.readers.reader_dataset import DEPTH, LABEL, RGB, make_array
from vrekit.readers import FrameDataset, make_loader, open_batch
from vrekit.readers.open_batch import empty_tensor
from vrekit.readers.pages import PagePool

SPECS = {"rgb": RGB, "depth": DEPTH, "label": LABEL}


@pytest.fixture
def mappings(monkeypatch: pytest.MonkeyPatch) -> "weakref.WeakSet[Any]":
    """Treat every batch as a large one, and return the mappings that live."""
    living: weakref.WeakSet[Any] = weakref.WeakSet()

    class Mapping(mmap.mmap):
        def __new__(cls, *args: Any, **options: Any) -> Self:
            mapping = super().__new__(cls, *args, **options)
            living.add(mapping)
            return mapping

    monkeypatch.setattr(open_batch, "_NEW_PAGES_BYTES", 0)
    monkeypatch.setattr(mmap, "mmap", Mapping)
    return living


def expected(name: str, frame: int) -> Any:
    return make_array(name, "car", frame, SPECS[name])


pytestmark = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="huge pages are asked for on Linux only")


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float16", "float32", "float64"]
)
def test_every_dtype_and_shape(mappings: "weakref.WeakSet[Any]", dtype: str) -> None:
    for shape in ((1,), (3, 0), (2, 3, 5), (7, 1025, 3)):
        tensor = empty_tensor(shape, dtype, PagePool())
        assert len(mappings) == (0 not in shape)
        assert tensor.shape == shape
        assert tensor.is_contiguous()
        assert tensor.numpy().dtype == np.dtype(dtype)
        tensor.numpy()[...] = np.ones(shape, dtype)
        assert np.count_nonzero(tensor.numpy()) == np.prod(shape)
        del tensor
        assert not len(mappings)


def test_small_batches_take_ordinary_memory(mappings: "weakref.WeakSet[Any]", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_batch, "_NEW_PAGES_BYTES", 32 << 20)
    pool = PagePool()
    small, large = (empty_tensor((size,), "uint8", pool) for size in (32 << 20, (32 << 20) + 1))
    assert len(mappings) == 1
    assert small.numel() + 1 == large.numel()


def test_whatever_is_kept_of_a_batch_stays_as_it_is(frames_folder: Path, mappings: "weakref.WeakSet[Any]") -> None:
    dataset = FrameDataset(frames_folder)
    kept: list[tuple[Any, Any]] = []
    for step in range(8, 28, 3):
        batch = dataset.batch(np.arange(step, step + 4))
        frame = step - 8
        kept += [
            (batch["rgb"][1], expected("rgb", frame + 1)),
            (batch["depth"][2:, ::2].numpy(), np.stack([expected("depth", frame + at)[::2] for at in (2, 3)])),
            (np.asarray(batch["rgb"])[3, 1:][..., 0], expected("rgb", frame + 3)[1:, :, 0]),
            (memoryview(batch["label"].numpy()), np.array([expected("label", frame + at) for at in range(4)])),
            (np.from_dlpack(batch["depth"])[0], expected("depth", frame)),
        ]
        del batch
        gc.collect()
    assert len(mappings) == 3 * 7
    for view, values in kept:
        np.testing.assert_array_equal(np.asarray(view), values)


def test_memory_is_used_again_after_the_last_view(frames_folder: Path, mappings: "weakref.WeakSet[Any]") -> None:
    dataset = FrameDataset(frames_folder, ["rgb"])
    batch = dataset[8:12]
    view = batch["rgb"].numpy()[1]
    del batch
    gc.collect()
    other = dataset[12:16]
    assert len(mappings) == 2
    np.testing.assert_array_equal(view, expected("rgb", 1))
    place = view.base.ctypes.data if view.base is not None else 0
    del view
    gc.collect()
    again = dataset[16:20]
    assert len(mappings) == 2
    assert place <= again["rgb"].data_ptr() <= place + other["rgb"].nbytes
    np.testing.assert_array_equal(again["rgb"][3], expected("rgb", 11))
    np.testing.assert_array_equal(other["rgb"][3], expected("rgb", 7))
    del again, other, dataset
    gc.collect()
    assert not len(mappings)


def test_a_batch_that_outlives_its_dataset(frames_folder: Path, mappings: "weakref.WeakSet[Any]") -> None:
    batch = FrameDataset(frames_folder, ["rgb"])[8:12]
    gc.collect()
    np.testing.assert_array_equal(batch["rgb"][2], expected("rgb", 2))
    del batch
    gc.collect()
    assert not len(mappings)


def test_what_is_kept_is_bounded_in_bytes(mappings: "weakref.WeakSet[Any]") -> None:
    pool = PagePool(max_kept_bytes=10_000)
    arrays = [pool.array(4000) for _ in range(5)]
    assert pool.kept_bytes == 0
    del arrays
    assert pool.kept_bytes == 8000
    assert len(mappings) == 2
    small = pool.array(900)  # too small for 4000 bytes
    assert pool.kept_bytes == 8000
    fitting = pool.array(1500)
    assert (len(fitting), pool.kept_bytes, len(mappings)) == (1500, 4000, 3)
    del small, fitting
    assert pool.kept_bytes == 8900
    assert len(pickle.dumps(pool)) < 300


def test_threads_never_share_pages() -> None:
    pool = PagePool()

    def borrow(number: int) -> bool:
        for turn in range(300):
            array = pool.array(5000)
            array[:] = (number + turn) % 256
            if (array != (number + turn) % 256).any():
                return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(borrow, range(8)))
    # a thread has two while it borrows; one more comes where two reach for the same
    assert 1 <= pool.kept_bytes // 5000 <= 32


def test_batches_can_be_changed_pickled_and_shared(frames_folder: Path, mappings: "weakref.WeakSet[Any]") -> None:
    dataset = FrameDataset(frames_folder, ["rgb"])
    batch = dataset[8:12]
    assert len(mappings) == 1
    copy = pickle.loads(pickle.dumps(batch["rgb"]))
    batch["rgb"] += 1
    np.testing.assert_array_equal(copy[2], expected("rgb", 2))
    np.testing.assert_array_equal(batch["rgb"][2], expected("rgb", 2) + 1)
    assert batch["rgb"].share_memory_().is_shared()
    np.testing.assert_array_equal(batch["rgb"][2], expected("rgb", 2) + 1)
    np.testing.assert_array_equal(dataset[10]["rgb"], expected("rgb", 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_keeps_no_batch_and_changes_none(
    frames_folder: Path, mappings: "weakref.WeakSet[Any]", workers: int
) -> None:
    loader = make_loader(frames_folder, batch_size=4, shuffle=False, num_workers=workers, threads=2)
    batches = list(loader)
    # worker processes fill shared memory instead, which this process gets as it is
    assert batches[0]["rgb"].is_shared() == (workers > 0)
    assert len(mappings) == (3 * 8 if workers == 0 else 0)
    for number in range(2, 8):
        for at, frame in enumerate(batches[number]["frame_index"].tolist()):
            for name in SPECS:
                np.testing.assert_array_equal(batches[number][name][at], expected(name, frame))
    del batches, loader
    gc.collect()
    assert not len(mappings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="pins memory for a GPU")
def test_pinned_batches_are_copies(frames_folder: Path, mappings: "weakref.WeakSet[Any]") -> None:
    batches = list(make_loader(frames_folder, batch_size=4, shuffle=False, pin_memory=True))
    gc.collect()
    assert all(batch["rgb"].is_pinned() for batch in batches)
    np.testing.assert_array_equal(batches[2]["rgb"][0], expected("rgb", 0))


def test_memory_too_large_to_keep_drives_out_nothing(mappings: "weakref.WeakSet[Any]") -> None:
    pool = PagePool(max_kept_bytes=3 << 20)
    kept = [pool.array(1 << 20) for _ in range(3)]
    del kept
    assert pool.kept_bytes == 3 << 20
    large = pool.array((3 << 20) + 1)
    del large
    assert pool.kept_bytes == 3 << 20
    assert len(mappings) == 3


def test_nothing_is_taken_back_while_the_interpreter_ends() -> None:
    """Names of modules are gone then, and `print(batch)` at the end of a script gave a traceback."""
    pool = PagePool()
    owner = pool.array(1 << 20).base
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert owner is not None
    type(owner).__del__(owner, lambda: True)
    assert pool.kept_bytes == 0
    type(owner).__del__(owner)
    assert pool.kept_bytes == 1 << 20
