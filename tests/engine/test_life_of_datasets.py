"""Any sequence of commands: what a dataset holds is what a simple model of it says, value for value."""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from numpy.typing import NDArray

from vrekit.catalog.dataset import open_dataset
from vrekit.catalog.manifest import read_manifest
from vrekit.catalog.subset import Subset
from vrekit.config.loader import parse_config
from vrekit.core.errors import ConflictError
from vrekit.engine.export import export, resume
from vrekit.engine.request import ExportRequest
from vrekit.jobs.gc import collect_garbage
from vrekit.jobs.materialize import materialize
from vrekit.jobs.merge.manifests import Layout
from vrekit.jobs.merge.run import merge
from vrekit.jobs.repair import repair
from vrekit.jobs.stats import compute_statistics
from vrekit.jobs.transcode.run import transcode
from vrekit.jobs.validate import validate
from vrekit.readers import FrameDataset
from vrekit.video.selection import FrameSelection
from vrekit.writers.journal import OpenShard
from vrekit.writers.webdataset.sidecars import find_sidecars, read_sidecar

VIDEOS = {"ann": 13, "bob": 9}
NAMES = ("rgb", "hsv", "canny", "flaky")
CLIPS = {"id": "video", "encode": "ffv1"}
CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
EXACT = (("rgb", "jxl"), ("rgb", "npy"), ("rgb", CLIPS), ("hsv", "npy"), ("hsv", "pco"))
CONFIG = """
representations:
  rgb: {type: color/rgb, codec: png}
  hsv: {type: color/hsv, deps: [rgb], codec: npy.zst}
  canny: {type: edges/canny, codec: npy.zst}
  flaky: {type: "flaky.py:Flaky", codec: npy}
"""
# `broken` beside it makes frames fail whose number leaves 3 when divided by 5
FLAKY = '''
from dataclasses import dataclass
from pathlib import Path
from vrekit.representations.base import Kind, Output, OutputSpec, Representation

@dataclass
class Flaky(Representation):
    """The mean of each channel, where it works."""

    batch_size = 1

    def output_spec(self, height, width, dependencies):
        return OutputSpec(kind=Kind.TABLE, dtype="float64", shape=(3,), axes="D")

    def compute(self, batch, dependencies):
        if Path(__file__).with_name("broken").exists() and any(index % 5 == 3 for index in batch.indices):
            raise RuntimeError("broken")
        return Output(data=batch.frames.mean((1, 2)))
'''

Key = tuple[str, int, str]


@dataclass
class Model:
    """What a dataset should hold.

    Attributes:
        folder: The dataset.
        status: `ok` or `failed` of each frame and representation.
        asked: What its exports asked for: `resume` finishes that.
        codecs: The stored codec of each representation, as far as it was changed.
    """

    folder: Path
    status: dict[Key, str] = field(default_factory=dict)
    asked: set[Key] = field(default_factory=set)
    codecs: dict[str, str] = field(default_factory=dict)

    def add(self, keys: set[Key], broken: Callable[[Key], bool], *, retry: bool = False) -> None:
        for key in keys:
            if key not in self.status or (retry and self.status[key] == "failed"):
                self.status[key] = "failed" if broken(key) else "ok"

    def copy(self, folder: Path, **codecs: str) -> "Model":
        return Model(folder, dict(self.status), set(self.asked), self.codecs | codecs)


def rows(folder: Path) -> dict[Key, str]:
    """Return what the catalog lists; its index is made or brought up to date."""
    with open_dataset(folder) as dataset:
        table = dataset.sql("SELECT video_id, frame_index, representation, status FROM samples").to_pylist()
    found = {(row["video_id"], row["frame_index"], row["representation"]): row["status"] for row in table}
    assert len(found) == len(table)
    return found


class Interruption:
    """Ctrl-C before the so-many-th sample is appended."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> None:
        self._append = OpenShard.append
        left = count(self.number, -1)

        def append(shard: OpenShard, *args: Any, **kwargs: Any) -> Any:
            if next(left) == 0:
                raise KeyboardInterrupt
            return self._append(shard, *args, **kwargs)

        OpenShard.append = append  # type: ignore[method-assign, assignment]

    def __exit__(self, *exc: object) -> None:
        OpenShard.append = self._append  # type: ignore[method-assign]


frames = st.lists(st.integers(0, 12), min_size=1, max_size=6)
names = st.sets(st.sampled_from(NAMES), min_size=1)
writers = st.sampled_from(["webdataset", "webdataset", "lance"])


class Life(RuleBasedStateMachine):
    """Datasets that are exported into, interrupted, damaged, merged and copied, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.models: list[Model] = []
        self.numbers = count()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize()
    def make_videos(self) -> None:
        (self.folder / "flaky.py").write_text(FLAKY)
        generator = np.random.default_rng(0)
        for video, length in VIDEOS.items():
            np.save(self.folder / f"{video}.npy", generator.integers(0, 256, (length, 16, 18, 3), np.uint8))
        self.truth: dict[Key, NDArray[Any]] = {}
        whole = self.folder / "whole"
        for video in VIDEOS:
            export(self.request(whole, video))
        dataset = FrameDataset(whole, NAMES)
        for sample in dataset:
            for name in NAMES:
                self.truth[sample["video_id"], sample["frame_index"], name] = sample[name].numpy()

    # -- helpers -----------------------------------------------------------------------------------------------

    def request(self, folder: Path, video: str, **changes: Any) -> ExportRequest:
        return ExportRequest(
            video=str(self.folder / f"{video}.npy"),
            dataset=folder,
            representations=parse_config(CONFIG).representations,
            config_folder=self.folder,
            threads=1,
            **changes,
        )

    def new_folder(self) -> Path:
        return self.folder / f"data{next(self.numbers)}"

    def is_flaky(self, key: Key) -> bool:
        return key[2] == "flaky" and key[1] % 5 == 3

    def is_broken(self, key: Key) -> bool:
        return (self.folder / "broken").exists() and self.is_flaky(key)

    def model(self, number: int) -> Model:
        return self.models[number % len(self.models)]

    def check(self, model: Model) -> None:
        assert rows(model.folder) == model.status
        assert [one for one in validate(model.folder).problems if one.code != "unfinished"] == []
        for name in {key[2] for key in model.status}:
            dataset = FrameDataset(model.folder, [name], missing="drop")
            wanted = sorted(key for key, status in model.status.items() if key[2] == name and status == "ok")
            assert [dataset.index.key(row) for row in range(len(dataset))] == [f"{v}/{f:08d}" for v, f, _ in wanted]
            for key, sample in zip(wanted, dataset, strict=True):
                np.testing.assert_array_equal(sample[name].numpy(), self.truth[key], err_msg=str(key))

    # -- commands ----------------------------------------------------------------------------------------------

    @rule(
        target_number=st.integers(0, 3),
        is_new=st.booleans(),
        video=st.sampled_from(list(VIDEOS)),
        numbers=frames,
        only=names,
        writer=writers,
        layout=st.sampled_from(["sample", "representation"]),
        shard_frames=st.sampled_from([2, 5, 64]),
        shard_size=st.sampled_from([1, 4000, 1 << 30]),
        interrupted=st.none() | st.integers(0, 12),
    )
    def export(
        self,
        target_number: int,
        is_new: bool,
        video: str,
        numbers: list[int],
        only: set[str],
        writer: str,
        layout: str,
        shard_frames: int,
        shard_size: int,
        interrupted: int | None,
    ) -> None:
        some = sorted({number for number in numbers if number < VIDEOS[video]} | {0})
        asked = {(video, frame, name) for frame in some for name in only}
        options: dict[str, Any] = {}
        if is_new or not self.models:
            options = {
                "writer": writer,
                "layout": layout,
                "shard_frames": shard_frames,
                "shard_size_bytes": shard_size,
            }
            self.models.append(Model(self.new_folder()))
            model = self.models[-1]
        else:
            model = self.model(target_number)
            if any(name in model.codecs for name in only):
                return
        selection = FrameSelection(tuple(some))
        request = self.request(model.folder, video, only=tuple(sorted(only)), frames=selection, **options)
        model.asked |= asked
        if interrupted is None:
            export(request)
            model.add(asked, self.is_broken)
        else:
            with Interruption(interrupted), suppress(KeyboardInterrupt):
                export(request)
        # Of what was interrupted, now or earlier, any part may have been stored: the rest of an open shard comes along.
        now = rows(model.folder)
        more = {key: status for key, status in now.items() if key not in model.status}
        assert more.keys() <= model.asked
        assert all(status == "ok" or self.is_flaky(key) for key, status in more.items())
        model.status |= more
        self.check(model)

    @precondition(lambda self: self.models)
    @rule(number=st.integers(0, 3))
    def resume(self, number: int) -> None:
        model = self.model(number)
        if not model.codecs:
            new = model.asked - model.status.keys()
            resume(model.folder, trust_code=True)  # a copy of a dataset is no proof of trust
            model.add(model.asked, self.is_broken, retry=True)
            # what worked when it was interrupted came along, whatever is broken now
            model.status |= {key: status for key, status in rows(model.folder).items() if key in new and status == "ok"}
            self.check(model)

    @rule()
    def break_or_mend(self) -> None:
        broken = self.folder / "broken"
        if broken.exists():
            broken.unlink()
        else:
            broken.touch()

    @precondition(lambda self: self.models)
    @rule(number=st.integers(0, 3))
    def gc(self, number: int) -> None:
        model = self.model(number)
        collect_garbage(model.folder, older_than=timedelta(0))
        self.check(model)

    @precondition(lambda self: self.models)
    @rule(number=st.integers(0, 3))
    def stats(self, number: int) -> None:
        model = self.model(number)
        if any(key[2] == "rgb" and status == "ok" for key, status in model.status.items()):
            with open_dataset(model.folder) as dataset:
                compute_statistics(dataset, threads=1)
            self.check(model)

    @precondition(lambda self: len(self.models) > 1)
    @rule(a=st.integers(0, 3), b=st.integers(0, 3), writer=writers, join=st.booleans(), grid=st.sampled_from([None, 4]))
    def merge(self, a: int, b: int, writer: str, join: bool, grid: int | None) -> None:
        one, other = self.model(a), self.model(b)
        if one is other or not one.status or not other.status:
            return
        shared = {key[2] for key in one.status} & {key[2] for key in other.status}
        layout = Layout(writer=writer, shard_frames=grid, join=join and writer == "webdataset")
        if any(one.codecs.get(name) != other.codecs.get(name) for name in shared):
            with pytest.raises(ConflictError):
                merge([one.folder, other.folder], self.new_folder(), layout=layout, sync=False)
            return
        both = Model(self.new_folder(), asked=one.asked | other.asked, codecs=one.codecs | other.codecs)
        for key in {*one.status, *other.status}:
            both.status[key] = "ok" if "ok" in (one.status.get(key), other.status.get(key)) else "failed"
        merge([one.folder, other.folder], both.folder, layout=layout, sync=False)
        self.models.append(both)
        self.check(both)

    @precondition(lambda self: self.models)
    @rule(number=st.integers(0, 3), writer=writers)
    def convert(self, number: int, writer: str) -> None:
        model = self.model(number)
        if model.status:
            copy = model.copy(self.new_folder())
            merge([model.folder], copy.folder, layout=Layout(writer=writer), sync=False)
            self.models.append(copy)
            self.check(copy)

    @precondition(lambda self: self.models)
    @rule(number=st.integers(0, 3), new=st.sampled_from(EXACT))
    def transcode(self, number: int, new: tuple[str, Any]) -> None:
        model, (name, codec) = self.model(number), new
        if any(key[2] == name for key in model.status):
            copy = model.copy(self.new_folder(), **{name: str(codec)})
            transcode(model.folder, copy.folder, codecs={name: codec}, threads=1)
            self.models.append(copy)
            self.check(copy)

    @precondition(lambda self: self.models)
    @rule(number=st.integers(0, 3), data=st.data())
    def materialize(self, number: int, data: st.DataObject) -> None:
        model = self.model(number)
        found = sorted({key[:2] for key, status in model.status.items() if status == "ok"})
        if not found:
            return
        chosen = data.draw(st.lists(st.sampled_from(found), min_size=1, unique=True))
        copy = Model(self.new_folder(), codecs=dict(model.codecs))
        copy.status = {key: status for key, status in model.status.items() if key[:2] in chosen and status == "ok"}
        copy.asked = set(model.asked)
        with open_dataset(model.folder) as dataset:
            where = " OR ".join(f"(video_id = '{video}' AND frame_index = {frame})" for video, frame in chosen)
            table = dataset.sql(f"SELECT * FROM frames WHERE {where}")
            materialize(Subset.from_table(dataset, table, where), dataset, copy.folder)
        self.models.append(copy)
        self.check(copy)

    @precondition(lambda self: self.models)
    @rule(number=st.integers(0, 3), at=st.integers(0, 1000))
    def damage_and_repair(self, number: int, at: int) -> None:
        model = self.model(number)
        if read_manifest(model.folder).writer != "webdataset":
            return
        stored = [
            (sidecar.with_suffix(".tar"), row)
            for sidecar in find_sidecars(model.folder)
            for row in read_sidecar(sidecar).to_pylist()
            if row["status"] == "ok" and row["byte_size"]
        ]
        if not stored:
            return
        tar, row = stored[at % len(stored)]
        content = bytearray(tar.read_bytes())
        content[row["byte_offset"] + at % row["byte_size"]] ^= 1
        tar.write_bytes(content)
        problems = validate(model.folder).problems
        assert [problem.code for problem in problems if problem.code != "unfinished"]
        repair(model.folder, problems)
        of_payload = [one for path, one in stored if path == tar and one["byte_offset"] == row["byte_offset"]]
        gone = {(one["video_id"], one["frame_index"], one["representation"]) for one in of_payload}  # several in a clip
        hidden = {key: status for key, status in rows(model.folder).items() if key in gone}
        assert set(hidden.values()) <= {"failed"}
        model.status = {key: status for key, status in model.status.items() if key not in gone} | hidden
        self.check(model)


@pytest.mark.timeout(1200)  # hundreds of commands, several minutes on a busy machine
@pytest.mark.slow
def test_any_sequence_of_commands() -> None:
    machine = settings(max_examples=30, stateful_step_count=12, deadline=None, suppress_health_check=CHECKS)
    run_state_machine_as_test(Life, settings=machine)
