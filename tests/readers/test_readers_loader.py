"""The loader: the sequence, its state, and what happens when something goes wrong on the way."""

import gc
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from tests.readers.reader_dataset import RGB, DatasetBuilder, record
from vrekit.core.errors import ChecksumError, DatasetError, UsageError
from vrekit.readers import FrameDataset, FrameLoader, make_loader
from vrekit.readers.prefetch import Prefetcher, PrefetchOptions

BATCH = 6  # 31 frames: 5 full batches and one of 1 frame

Signature = tuple[tuple[str, ...], str]


def signature(batch: dict[str, Any]) -> Signature:
    """Which frames a batch holds, and a hash of all its tensors."""
    state = hashlib.sha256()
    for name, value in sorted(batch.items()):
        if isinstance(value, torch.Tensor):
            state.update(f"{name}{value.dtype}{tuple(value.shape)}".encode() + value.numpy().tobytes())
    return tuple(batch["key"]), state.hexdigest()


def epochs(loader: FrameLoader, count: int) -> list[list[Signature]]:
    return [[signature(batch) for batch in loader] for _ in range(count)]


@pytest.fixture(scope="module")
def dataset(frames_folder: Path) -> FrameDataset:
    return FrameDataset(frames_folder)


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("vrekit-read")]


def wait_until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_resume_at_every_step_gives_the_same_remaining_sequence(
    dataset: FrameDataset, workers: int, shuffle: bool
) -> None:
    def new(count: int = workers) -> FrameLoader:
        return make_loader(dataset, batch_size=BATCH, seed=3, shuffle=shuffle, num_workers=count, threads=2)

    unbroken = new()
    states, sequence = [unbroken.state_dict()], []
    for _ in range(2):
        for batch in unbroken:
            sequence.append(signature(batch))
            states.append(unbroken.state_dict())
    assert len(sequence) == 12
    assert (sequence[:6] != sequence[6:]) == shuffle
    for step, state in enumerate(states[:-1]):
        resumed = new()
        resumed.load_state_dict(json.loads(json.dumps(state)))
        assert resumed.state_dict() == state  # saving again before reading changes nothing
        rest = [signature(batch) for batch in resumed]
        assert rest == sequence[step : 6 if step < 6 else 12], f"step {step}"
        assert resumed.state_dict() == states[6 if step < 6 else 12]
    # the epoch after the one that was cut is whole: once for each way to get there
    resumed = new()
    resumed.load_state_dict(states[4])
    assert epochs(resumed, 2) == [sequence[4:6], sequence[6:]]
    # the state is elastic: any other number of workers continues it
    for other in {0, 1, 2} - {workers}:
        resumed = new(other)
        resumed.load_state_dict(states[8])
        assert [signature(batch) for batch in resumed] == sequence[8:]


@pytest.mark.parametrize("workers", [0, 2])
def test_state_at_the_end_of_an_epoch_starts_a_whole_next_one(dataset: FrameDataset, workers: int) -> None:
    loader = make_loader(dataset, batch_size=BATCH, num_workers=workers)
    expected = epochs(loader, 3)
    loader = make_loader(dataset, batch_size=BATCH, num_workers=workers)
    for at in range(3):  # saved and restored at every end: no epoch is empty or short
        resumed = make_loader(dataset, batch_size=BATCH, num_workers=workers)
        resumed.load_state_dict(loader.state_dict())
        assert resumed.epoch == at
        assert epochs(resumed, 1) == [expected[at]]
        loader = resumed


def test_epochs_cover_every_frame_once_and_differ(dataset: FrameDataset) -> None:
    loader = make_loader(dataset, batch_size=BATCH)
    assert isinstance(loader, StatefulDataLoader)
    assert len(loader) == 6
    seen = []
    for _ in range(3):
        keys = [key for batch in loader for key in batch["key"]]
        assert sorted(keys) == [dataset.index.key(row) for row in range(31)]
        seen.append(keys)
    assert seen[0] != seen[1] != seen[2]
    assert loader.epoch == 3


def test_an_epoch_broken_off_is_followed_by_the_next(dataset: FrameDataset) -> None:
    expected = epochs(make_loader(dataset, batch_size=BATCH), 2)
    loader = make_loader(dataset, batch_size=BATCH)
    for _ in loader:
        break
    assert (loader.epoch, loader.position) == (0, 1)
    assert epochs(loader, 1) == [expected[1]]
    loader = make_loader(dataset, batch_size=BATCH)
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())  # the way to go on with the same epoch
    assert epochs(loader, 1) == [expected[0][1:]]


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_a_state_while_iterating_is_never_silently_ignored(dataset: FrameDataset, workers: int) -> None:
    loader = make_loader(dataset, batch_size=BATCH, num_workers=workers)
    state = loader.state_dict()
    running = iter(loader)
    first = signature(next(running))
    loader.load_state_dict(state)
    with pytest.raises(UsageError, match="this iteration is over: load_state_dict was called"):
        next(running)
    assert signature(next(iter(loader))) == first
    stale, fresh = iter(loader), iter(loader)
    next(fresh)
    with pytest.raises(UsageError, match="another iteration of this loader began"):
        next(stale)


def test_state_is_small_and_plain(dataset: FrameDataset) -> None:
    loader = make_loader(dataset, batch_size=BATCH, num_workers=2, seed=2**70)
    before = loader.state_dict()
    assert not reader_threads()  # asking for a state starts nothing
    running = iter(loader)
    next(running)
    text = json.dumps(loader.state_dict())
    assert len(text) < 1000
    assert {**before, "position": 1} == json.loads(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4}, "batch_size times world_size: state has 6, this loader 4"),
        ({"seed": 1}, "seed: state has 0, this loader 1"),
        ({"shuffle": False}, "shuffle: state has True, this loader False"),
        ({"drop_last": True}, "drop_last: state has False, this loader True"),
        ({"subset": ["car/00000001", "car/00000002"]}, r"frames \(digest .*\n.*number of frames: state has 31, .* 2"),
    ],
)
def test_the_state_of_another_loader_is_refused(frames_folder: Path, options: dict[str, Any], message: str) -> None:
    state = make_loader(frames_folder, batch_size=BATCH).state_dict()
    loader = make_loader(frames_folder, **{"batch_size": BATCH, **options})
    with pytest.raises(DatasetError, match=message):
        loader.load_state_dict(state)


def test_a_state_that_is_none_is_refused(dataset: FrameDataset) -> None:
    loader = make_loader(dataset, batch_size=BATCH)
    with pytest.raises(DatasetError, match="not the state of a vrekit loader"):
        loader.load_state_dict({"_snapshot": {}})
    with pytest.raises(DatasetError, match="the state is damaged: epoch = 0, position = 7 of 6 batches"):
        loader.load_state_dict({**loader.state_dict(), "position": 7})


def test_ranks_resume_on_another_number_of_ranks(dataset: FrameDataset) -> None:
    single = make_loader(dataset, batch_size=BATCH, drop_last=True)
    expected = [batch["key"] for batch in single]
    pair = [make_loader(dataset, batch_size=3, drop_last=True, rank=rank, world_size=2) for rank in (0, 1)]
    states = []
    for number, batches in enumerate(zip(*pair, strict=True)):
        assert [key for batch in batches for key in batch["key"]] == expected[number]
        states.append(pair[0].state_dict())
        assert pair[1].state_dict() == states[-1]
    single.load_state_dict(states[1])
    assert [batch["key"] for batch in single] == expected[2:]


def test_every_worker_count_and_thread_count_reads_the_same(dataset: FrameDataset) -> None:
    expected = epochs(make_loader(dataset, batch_size=BATCH, threads=1, prefetch_batches=0), 1)
    assert epochs(make_loader(dataset, batch_size=BATCH, threads=5, prefetch_batches=7), 1) == expected
    assert epochs(make_loader(dataset, batch_size=BATCH, threads=2, prefetch_bytes=1), 1) == expected
    assert epochs(make_loader(dataset, batch_size=BATCH, num_workers=2, threads=1), 1) == expected


def test_the_global_random_numbers_are_not_touched(dataset: FrameDataset) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(make_loader(dataset, batch_size=BATCH, num_workers=1))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow  # each spawned worker imports torch
def test_spawned_workers_read_the_same(frames_folder: Path) -> None:
    loader = make_loader(frames_folder, batch_size=BATCH, num_workers=2, multiprocessing_context="spawn")
    expected = epochs(make_loader(frames_folder, batch_size=BATCH), 1)
    assert epochs(loader, 1) == expected


def test_transform_and_collate_see_samples(dataset: FrameDataset, frames_folder: Path) -> None:
    def brighter(sample: dict[str, Any]) -> dict[str, Any]:
        return {"rgb": sample["rgb"].float() / 255, "frame": sample["frame_index"], "key": sample["key"]}

    loader = make_loader(frames_folder, batch_size=4, transform=brighter, shuffle=False)
    batch = next(iter(loader))
    expected = dataset.batch(range(4))["rgb"].float() / 255
    assert torch.equal(batch["rgb"], expected)
    assert batch["frame"].tolist() == [100, 101, 102, 103]
    assert batch["key"] == [f"airport/{frame:08d}" for frame in range(100, 104)]
    loader = make_loader(dataset, batch_size=4, shuffle=False, collate=lambda samples: [s["key"] for s in samples])
    assert next(iter(loader)) == batch["key"]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_names_batch_and_frames(frames_folder: Path, workers: int) -> None:
    def fails(sample: dict[str, Any]) -> dict[str, Any]:
        if sample["key"] == "car/00000002":
            raise KeyError("no such thing")
        return sample

    loader = make_loader(frames_folder, batch_size=8, transform=fails, shuffle=False, num_workers=workers)
    running = iter(loader)
    next(running)
    with pytest.raises(KeyError, match="no such thing") as caught:
        next(running)
    text = str(caught.value) + "".join(getattr(caught.value, "__notes__", []))
    assert "while reading batch 1 of epoch 0: car/00000000, car/00000001, car/00000002 and 5 more frames" in text
    assert (loader.epoch, loader.position) == (0, 1)  # the batch that failed was not yielded
    if not workers:
        assert wait_until(lambda: not reader_threads())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_flipped_byte_stops_the_loader_or_is_skipped(
    tmp_path: Path, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB)})
    builder.add("car", range(12))
    builder.write()
    shard = tmp_path / "shards/car/all-00000000.tar"
    data = bytearray(shard.read_bytes())
    data[FrameDataset(tmp_path).index.columns["rgb"].offset[5] + 150] ^= 1
    shard.write_bytes(data)
    loader = make_loader(tmp_path, batch_size=4, shuffle=False, num_workers=workers)
    with pytest.raises(ChecksumError, match=r"all-00000000.tar: frame car/00000005, representation 'rgb'"):
        list(loader)
    lenient = FrameDataset(tmp_path, on_error="skip")
    batches = list(make_loader(lenient, batch_size=4, shuffle=False, num_workers=workers))
    assert [batch["frame_index"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 6, 7], [8, 9, 10, 11]]
    assert batches[1]["rgb"].shape == (3, 6, 8, 3)
    if not workers:
        assert lenient.skipped == 1
        assert sum("skipped a damaged frame" in message for message in caplog.messages) == 1


def test_threads_end_with_the_epoch_with_the_iterator_and_with_the_loader(dataset: FrameDataset) -> None:
    loader = make_loader(dataset, batch_size=2, threads=3)
    list(loader)
    assert wait_until(lambda: not reader_threads())
    running = iter(loader)
    next(running)
    assert reader_threads()
    del running
    gc.collect()
    assert wait_until(lambda: not reader_threads())
    running = iter(loader)
    assert reader_threads()
    loader.load_state_dict(loader.state_dict())  # ends it, although it is still held
    assert wait_until(lambda: not reader_threads())
    with pytest.raises(UsageError):
        next(running)


def test_prefetching_is_bounded_in_batches_and_bytes(dataset: FrameDataset) -> None:
    one = dataset.size_bytes(np.arange(4))

    def read_ahead(batches: int, size_bytes: int) -> int:
        asked = 0

        def counted() -> Iterator[tuple[str, Any]]:
            nonlocal asked
            for start in range(0, 28, 4):
                asked += 1
                yield f"batch {start}", np.arange(start, start + 4)

        prefetcher = Prefetcher(dataset, counted(), PrefetchOptions(threads=2, batches=batches, size_bytes=size_bytes))
        next(prefetcher)
        time.sleep(0.05)
        prefetcher.close()
        return asked - 1

    assert read_ahead(0, 1 << 30) == 1
    assert read_ahead(3, 1 << 30) == 4
    assert read_ahead(100, 1 << 30) == 6
    assert read_ahead(100, 3 * one) == 4  # three under way, and the one that does not fit yet
    assert read_ahead(100, 1) == 2  # a batch above the limit goes alone


def test_the_interpreter_exits_while_a_loader_is_running(frames_folder: Path) -> None:
    code = (
        "from vrekit.readers import make_loader\n"
        f"running = iter(make_loader({str(frames_folder)!r}, batch_size=2, threads=4))\n"
        "print(len(next(running)['key']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n")
    assert "Traceback" not in done.stderr


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, vrekit.readers; print({'torch', 'torchdata'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "set()\n"
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from vrekit.readers import nothing  # noqa: F401


def test_an_empty_dataset_has_no_batches(tmp_path: Path) -> None:
    builder = DatasetBuilder(tmp_path, {"rgb": record("rgb", RGB)})
    builder.put("car", 0, "rgb", None)
    builder.write()
    loader = make_loader(tmp_path, batch_size=4)
    assert len(loader) == 0
    assert list(loader) == []
    assert list(loader) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": -1}, "num_workers is -1, expected at least 0"),
        ({"threads": 0}, "threads is 0, expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"rank": 0}, "rank and world_size go together"),
        ({"representations": ["rgb"]}, "belong to the FrameDataset"),
    ],
)
def test_impossible_options_are_refused(dataset: FrameDataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_loader(dataset, **{"batch_size": 1, **options})
