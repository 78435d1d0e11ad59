"""Where hostile datasets are opened: every command on a copy, with files around it that must stay as they are."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from typer.testing import CliRunner

from vrekit.cli.app import app
from vrekit.core.documents import CHECKSUM_KEY, document_bytes
from vrekit.core.errors import VrekitError
from vrekit.core.schema import SAMPLES_SCHEMA
from vrekit.readers import FrameDataset, make_loader
from vrekit.writers.webdataset.sidecars import sidecar_bytes

CONFIG = """
representations:
  rgb: {type: color/rgb, codec: png}
  hsv: {type: color/hsv, deps: [rgb], store: false}
  canny: {type: edges/canny, codec: npy.zst}
  sift: {type: descriptor/sift}
"""
BAIT = {
    "settings.json": '{"mine": true}',
    "notes.txt": "private",
    "all-00000000-00000007.tar": "a tar that is not yours",
    ".all-00000000.tar.partial": "work in progress",
    ".all-00000000.journal": "{}",
    ".old.1.tmp": "a temporary file",
}
_PROGRAMS = (
    "ffmpeg",
    "ffprobe",
    "ldconfig",
    "gcc",
    "ld",
    "objdump",
)  # what vrekit, or `ctypes.util` for a library, starts

_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.startfile")

Attack = Callable[[Path], None]


class _Watch:
    """What this process opens, starts and executes while a dataset is looked at; one audit hook for all tests."""

    def __init__(self) -> None:
        self.bait: str | None = None
        self.seen: list[str] = []
        self._is_installed = False

    @contextmanager
    def on(self, bait: Path) -> Iterator[list[str]]:
        if not self._is_installed:
            sys.addaudithook(self._hook)
            self._is_installed = True
        self.bait, self.seen = os.path.join(bait.resolve(), ""), []
        try:
            yield self.seen
        finally:
            self.bait = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.bait is None:
            return
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            is_followed = not (arguments[2] or 0) & os.O_NOFOLLOW
            path = os.path.realpath(path if is_followed else os.path.dirname(path))
            if os.path.join(path, "").startswith(self.bait):
                self.seen.append(f"opened {path}")
        elif event in _STARTS or (event == "subprocess.Popen" and Path(str(arguments[0])).name not in _PROGRAMS):
            self.seen.append(f"{event} {arguments!r}")


_WATCH = _Watch()


@dataclass(frozen=True)
class Arena:
    """A dataset, deep inside folders that must stay as they are.

    Attributes:
        root: Everything; whatever is not below `dataset` or `work` is bait.
        template: The honest dataset.
        dataset: The copy that is attacked.
        work: Where commands put what they make.
        video: Another video to export.
    """

    root: Path
    template: Path
    video: Path

    @property
    def dataset(self) -> Path:
        return self.root / "a" / "b" / "c" / "evil"

    @property
    def work(self) -> Path:
        return self.root / "a" / "b" / "c" / "work"

    @property
    def bait(self) -> Path:
        return self.root / "a" / "victim"

    def set_up(self, attack: Attack) -> None:
        """Lay out a fresh copy of the dataset, attacked, and nothing in `work`."""
        for folder in (self.dataset, self.work):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.template, self.dataset, symlinks=True)
        self.work.mkdir(parents=True)
        self.bait.mkdir(exist_ok=True)
        for name, text in BAIT.items():
            (self.bait / name).write_text(text)
            os.utime(self.bait / name, (1, 1))
        attack(self.dataset)

    def surroundings(self) -> dict[str, tuple[int, str]]:
        """Return mode and digest of everything that is not the dataset's or a command's own."""
        found = {}
        for folder, folders, files in os.walk(self.root):
            here = Path(folder)
            folders[:] = [name for name in folders if here / name not in (self.dataset, self.work)]
            for name in [*folders, *files]:
                path = here / name
                digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
                found[str(path.relative_to(self.root))] = (path.lstat().st_mode, digest)
        return found

    def check(self, attack: Attack) -> dict[str, str]:
        """Run every command and the readers on the attacked dataset; return what each of them said.

        Raises:
            AssertionError: If one ends with anything but an exit code of 0, 1 or 2 and a message, opens or changes
                anything outside the dataset, or starts a program.
        """
        said = {}
        for batch in self._batches():
            self.set_up(attack)
            before = self.surroundings()
            for name, call in batch.items():
                with _WATCH.on(self.bait) as seen:
                    said[name] = call()
                assert not seen, (name, seen)
                after = self.surroundings()
                assert after == before, (name, set(after.items()) ^ set(before.items()))
        return said

    def _batches(self) -> Iterable[Mapping[str, Callable[[], str]]]:
        dataset, work = self.dataset, self.work
        (self.root / "config.yaml").write_text(CONFIG)
        config = ("--config", self.root / "config.yaml")
        subset = self.root / "subset.parquet"
        looking: dict[str, tuple[object, ...]] = {
            "info": ("info", dataset),
            "info json": ("info", dataset, "--json"),
            "graph": ("graph", dataset),
            "query": ("query", dataset, "frame_index < 3"),
            "sql videos": ("query", dataset, "--sql", "SELECT * FROM videos"),
            "sql runs": ("query", dataset, "--sql", "SELECT * FROM runs"),
            "sql representations": ("query", dataset, "--sql", "SELECT * FROM representations"),
            "validate": ("validate", dataset),
            "stats": ("stats", dataset),
            "items": ("items", dataset, "sift"),
            "merge": ("merge", dataset, "-o", work / "merged"),
            "convert": ("convert", dataset, "-o", work / "converted", "--writer", "lance"),
            "transcode": ("transcode", dataset, "-o", work / "transcoded", "--codec", "canny=png"),
            "materialize": ("subset", "materialize", subset, dataset, "-o", work / "materialized"),
            "verify": ("subset", "verify", subset, dataset),
        }
        changing: list[dict[str, tuple[object, ...]]] = [
            {"repair": ("validate", dataset, "--repair"), "validate repaired": ("validate", dataset)},
            {"gc": ("gc", dataset, "--older-than", "0")},
            {"resume": ("resume", dataset)},
            {"export": ("export", self.video, "-o", dataset, *config, "--frames", "0..4", "--no-progress")},
            {"export more": ("export", self.video, "-o", dataset, *config, "--video-id", "more", "--no-progress")},
        ]
        yield {
            "read all": lambda: _read(lambda: FrameDataset(dataset)[0]),
            "read rgb": lambda: _read(lambda: FrameDataset(dataset, ["rgb"])[0]),
            "loader": lambda: _read(lambda: list(make_loader(dataset, batch_size=4, seed=0))),
            **{name: self._runner(arguments) for name, arguments in looking.items()},
        }
        for batch in changing:
            yield {name: self._runner(arguments) for name, arguments in batch.items()}

    def _runner(self, arguments: tuple[object, ...]) -> Callable[[], str]:
        return lambda: run(*arguments)


def run(*arguments: object) -> str:
    """Run `vrekit`; return its exit code and what it printed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), (
        arguments,
        result.exception,
        result.output,
    )
    assert result.exit_code in (0, 1, 2), (arguments, result.output)
    assert "Traceback" not in result.output, (arguments, result.output)
    return f"{result.exit_code}: {result.output}"


def _read(call: Callable[[], object]) -> str:
    try:
        call()
    except IndexError as error:  # of a dataset that has no frames
        return f"IndexError: {error}"
    except VrekitError as error:
        return f"{type(error).__name__}: {error.message} hint: {error.hint}"
    return "read"


# -- what attackers do -------------------------------------------------------------------------------------------


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file and give it a right checksum, as an attacker would."""
    data = json.loads(path.read_bytes())
    data.pop(CHECKSUM_KEY, None)
    change(data)
    path.write_bytes(document_bytes(data))


def edit_manifest(dataset: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change `dataset.json`."""
    edit_json(dataset / "dataset.json", change)


def edit_runs(dataset: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change every run's record."""
    for path in (dataset / "runs").glob("*.json"):
        edit_json(path, change)


def edit_rows(dataset: Path, **columns: Any) -> None:
    """Give columns of every sidecar one value, with a right checksum."""
    import pyarrow as pa

    for path in (dataset / "shards").glob("*/*.parquet"):
        table = pq.ParquetFile(path).read()
        for name, value in columns.items():
            field = SAMPLES_SCHEMA.field(name)
            array = pa.array([value] * len(table), field.type)
            table = table.set_column(table.schema.get_field_index(name), field.with_nullable(True), array)
        path.write_bytes(sidecar_bytes(table.replace_schema_metadata()))
