"""The same bytes and the same values, whatever the threads, the batches, the memory and the order of the work."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.engine.test_export import file_hashes, payloads
from vrekit.compute.processor import BatchProcessor
from vrekit.engine.cell_run import CellRun
from vrekit.engine.export import export, resume
from vrekit.engine.plan import runs_of_equal_work
from vrekit.engine.request import ExportRequest
from vrekit.jobs.validate import validate
from vrekit.video.selection import parse_frames

MakeRequest = Callable[..., ExportRequest]

AROUND = """
import numpy as np
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

class Around(Representation):
    '''How many of the five frames around each there are, and their mean: needs neighbours on both sides.'''

    @property
    def context(self):
        return (2, 2)

    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.TABLE, dtype="float64", shape=(2,), axes="D")

    def compute(self, batch, dependencies):
        rows = []
        for position in range(len(batch)):
            found = [batch.neighbour(position, offset) for offset in (-2, -1, 0, 1, 2)]
            present = [frame for frame in found if frame is not None]
            rows.append((len(present), np.mean(present)))
        return Output(data=np.array(rows))

class Copy(Representation):
    inputs = None
    uses_frames = False

    def output_spec(self, height, width, dependencies):
        return next(iter(dependencies.values()))

    def compute(self, batch, dependencies):
        (output,) = dependencies.values()
        return Output(data=output.data, valid=output.valid)
"""

CONFIG = """
representations:
  flow: {type: flow/dis, params: {preset: ultrafast}, codec: npy}
  after: {type: 'around.py:Copy', deps: [flow], codec: npy}
  around: {type: 'around.py:Around', codec: npy}
  rgb: {type: color/rgb, codec: png}
"""


@pytest.fixture
def ask(make_request: MakeRequest, tmp_path: Path) -> Callable[..., ExportRequest]:
    (tmp_path / "around.py").write_text(AROUND)

    def make(name: str, **changes: object) -> ExportRequest:
        return make_request(config=CONFIG, config_folder=tmp_path, dataset=tmp_path / name, **changes)

    return make


@pytest.mark.parametrize("seed", range(6))
def test_any_split_of_the_work_gives_the_same_payloads(ask: Callable[..., ExportRequest], seed: int) -> None:
    whole = ask("whole")
    export(whole)
    choose = random.Random(seed)
    for _ in range(choose.randint(1, 3)):
        frames = sorted(choose.sample(range(30), choose.randint(1, 20)))
        export(
            ask(
                "parts",
                frames=parse_frames(",".join(map(str, frames))),
                threads=choose.choice([1, 3]),
                batch_size=choose.choice([1, 2, None]),
                memory_bytes=choose.choice([1, 10**5, 10**8]),
                only=choose.choice([(), ("flow",), ("after", "rgb"), ("around",)]),
            )
        )
    parts = ask("parts")
    export(parts)
    assert payloads(parts.dataset) == payloads(whole.dataset)
    assert not validate(parts.dataset).problems


@pytest.mark.parametrize("stop_at", [1, 7, 8, 13])
def test_the_same_tars_after_an_interruption(
    ask: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch, stop_at: int
) -> None:
    whole, broken = ask("whole"), ask("broken", memory_bytes=1)
    export(whole)
    seen = 0
    append = CellRun.append

    def interrupted(self: CellRun, result: object) -> None:
        nonlocal seen
        seen += 1
        if seen > stop_at:
            raise KeyboardInterrupt
        append(self, result)  # type: ignore[arg-type]  # what _append takes is private

    with monkeypatch.context() as patch:
        patch.setattr(CellRun, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export(broken)
    (report,) = resume(broken.dataset, overrides={"threads": 3, "memory_bytes": 10**8})
    assert report.totals["rgb"].computed == 30 - stop_at  # nothing that was appended is computed again
    assert file_hashes(broken.dataset, "shards/*/*.tar") == file_hashes(whole.dataset, "shards/*/*.tar")


@pytest.mark.parametrize("layout", ["sample", "representation"])
def test_the_same_tars_with_any_number_of_threads(ask: Callable[..., ExportRequest], layout: str) -> None:
    one, many = ask("one", threads=1, batch_size=1, layout=layout), ask("many", threads=5, layout=layout)
    export(one)
    export(many)
    hashes = file_hashes(one.dataset, "shards/*/*.tar")
    assert hashes == file_hashes(many.dataset, "shards/*/*.tar")
    assert len(hashes) == (4 if layout == "sample" else 16)


def test_one_decode_serves_all(ask: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch) -> None:
    from vrekit.video.arrays import ArraySource

    asked: list[int] = []
    read = ArraySource.read

    def count(self: ArraySource, indices: list[int]) -> object:
        asked.extend(np.asarray(indices).tolist())
        return read(self, indices)

    monkeypatch.setattr(ArraySource, "read", count)
    export(ask("out", memory_bytes=1))
    assert asked == list(range(30))


@pytest.mark.parametrize("name", ["fine(x)+1", "a-b"])
def test_names_with_signs_in_them(make_request: MakeRequest, name: str) -> None:
    config = f"representations:\n  a: {{type: color/rgb, codec: png}}\n  '{name}': {{type: edges/canny, codec: npy}}\n"
    request = make_request(config=config, layout="representation", images="jpg")
    export(request)
    ends = {member.split(".", 1)[1] for member in payloads(request.dataset)}
    assert ends == {"a.png", "a.image.jpg", f"{name}.npy", f"{name}.image.jpg"}
    assert not validate(request.dataset).problems
    assert export(request).run_id is None


def test_runs_of_equal_work_cover_everything_once() -> None:
    choose = np.random.default_rng(0)
    for _ in range(20):
        missing = {name: np.flatnonzero(choose.random(40) < choose.random()) for name in "abc"}
        seen: dict[str, list[int]] = {name: [] for name in missing}
        last = -1
        for frames, todo in runs_of_equal_work(missing):
            assert len(frames)
            assert frames[0] > last
            last = frames[-1]
            for name in todo:
                seen[name] += frames.tolist()
        assert seen == {name: frames.tolist() for name, frames in missing.items()}
    assert list(runs_of_equal_work({})) == []


def test_batches_fit_the_memory(
    ask: Callable[..., ExportRequest], monkeypatch: pytest.MonkeyPatch, clip_array: NDArray[np.uint8]
) -> None:
    sizes: list[int] = []
    compute = BatchProcessor.compute

    def spy(self: BatchProcessor, batch: object, *rest: object) -> object:
        sizes.append(len(batch))  # type: ignore[arg-type]  # a FrameBatch
        return compute(self, batch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(BatchProcessor, "compute", spy)
    frame = clip_array[0].nbytes * 2 + 2 * 32 * 48 * 2 * 4 + 16  # rgb twice, two flows, around
    for budget, largest in ((1, 1), (frame * 5 * 3, 3), (10**9, 8)):
        sizes.clear()
        export(ask(f"out{budget}", memory_bytes=budget, threads=2))
        assert max(sizes) == largest  # 8 is a whole cell
