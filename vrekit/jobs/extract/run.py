"""Stored frames as files that any program opens: pictures, NumPy files, JSON, text, and videos of pictures.

A file gets its name, and a line in the index, once it is complete. The same request into the same folder goes on
where an interrupted one stopped.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vrekit.catalog.manifest import MANIFEST_NAME
from vrekit.catalog.remote import location_of
from vrekit.core.documents import MAX_DOCUMENT_BYTES
from vrekit.core.errors import CodecError, UsageError
from vrekit.core.files import make_folder, open_regular, open_to_change, read_regular, storage_errors, write_atomic
from vrekit.core.reports import FRAMES, ProgressListener, Report, timed
from vrekit.core.threads import usable_cpus
from vrekit.jobs.extract.forms import Form, forms_of, picture_of
from vrekit.jobs.extract.movie import Movie, frame_rate
from vrekit.jobs.extract.selection import select_rows
from vrekit.readers import FrameDataset, make_loader
from vrekit.readers.index import FrameIndex
from vrekit.representations.pictures import Picture
from vrekit.video.facts import ranges
from vrekit.video.selection import FrameSelection

INDEX_NAME = "index.jsonl"  # one line a file
REQUEST_NAME = "extract.json"  # what was asked for: only the same request goes on in the folder
_BATCH_BYTES = 64 << 20
_BATCH_FRAMES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractRequest:
    """What to write where.

    Attributes:
        dataset: Folder of the dataset.
        output: Folder of the files; new, empty, or with an interrupted extract of the same request.
        formats: Some of FORMATS: `npy`, `json` and `txt` hold values, `png`, `jpg` and `mp4` pictures of them. Empty:
            values in the files of the codec profile `plain`.
        representations: Names; empty means all but the exported pictures.
        videos: Video ids; empty means all.
        frames: Frame numbers of each video.
        where: SQL predicate that selects frames.
        subset: Parquet file that names frames.
        force: Overwrite files of another request.
        trust_code: Let virtual representations run code that the dataset records.
        threads: Threads that decode and encode; None takes the CPUs.
    """

    dataset: Path
    output: Path
    formats: tuple[str, ...] = ()
    representations: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    frames: FrameSelection = field(default_factory=FrameSelection)
    where: str | None = None
    subset: Path | None = None
    force: bool = False
    trust_code: bool = False
    threads: int | None = None


@dataclass(slots=True, kw_only=True)
class ExtractReport(Report):
    """What was written.

    Attributes:
        output: The folder.
        frames: Number of selected frames.
        files: Files written now.
        already: Files that were there already.
        missing: Values that the dataset does not have: frames that failed, or were never exported.
        size_bytes: Of the files written now.
    """

    output: Path
    frames: int = 0
    files: int = 0
    already: int = 0
    missing: int = 0
    size_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dict."""
        return Report.to_json(self) | {"index": str(self.output / INDEX_NAME)}


@timed
def extract(request: ExtractRequest, *, progress: ProgressListener | None = None) -> ExtractReport:
    """Write selected frames of a dataset as plain files, `<video>/<frame>.<representation>.<ending>`, and an index.

    Raises:
        DatasetError: If the dataset cannot be read, or a virtual representation needs `trust_code`.
        UsageError: If the request cannot be fulfilled, selects nothing, or the folder holds something else.
        ChecksumError: If a payload changed since it was written.
        StorageError: If a file cannot be written.
    """
    options: dict[str, Any] = {"missing": "none", "trust_code": request.trust_code}
    whole = FrameDataset(request.dataset, request.representations or None, **options)
    forms = [form for name in whole.representations for form in forms_of(name, whole.spec(name), request.formats)]
    rows = select_rows(whole, videos=request.videos, frames=request.frames, where=request.where, subset=request.subset)
    report = ExtractReport(output=request.output, frames=len(rows))
    done = _open_folder(request, whole, rows, forms)
    report.already = len(done)
    left = [row for row in rows.tolist() if not done or _is_left(whole.index, row, forms, done)]
    progress = progress or ProgressListener()
    progress.started({FRAMES: len(left)})
    if left:
        chosen = FrameDataset(request.dataset, whole.representations, subset=_table(whole.index, left), **options)
        fps = {video: info.fps for video, info in whole.manifest.videos.items()}
        with _Writer(
            request,
            forms,
            done,
            report,
            rate_of=lambda video: frame_rate(_times(whole.index, rows, video), fps[video]),
        ) as writer:
            for batch in make_loader(
                chosen, batch_size=_batch_size(chosen), shuffle=False, drop_last=False, threads=request.threads
            ):
                writer.write(batch)
                progress.advanced(FRAMES, len(batch["key"]))
    return report


# -- frames ---------------------------------------------------------------------------------------------


def _times(index: FrameIndex, rows: NDArray[np.int64], video: str) -> list[float]:
    """Return the times in seconds of the selected frames of a video."""
    times: list[float] = index.pts_seconds[rows[index.video[rows] == index.videos.index(video)]].tolist()
    return times


def _is_left(index: FrameIndex, row: int, forms: Sequence[Form], done: Mapping[str, Any]) -> bool:
    video, frame = index.videos[index.video[row]], int(index.frame_index[row])
    return any(form.path(video, frame) not in done for form in forms)


def _table(index: FrameIndex, rows: Sequence[int]) -> pa.Table:
    chosen = np.asarray(rows, np.int64)
    names = pa.DictionaryArray.from_arrays(pa.array(index.video[chosen]), pa.array(index.videos)).cast(pa.string())
    return pa.table({"video_id": names, "frame_index": pa.array(index.frame_index[chosen])})


def _batch_size(dataset: FrameDataset) -> int:
    size = max(dataset.size_bytes(np.array([row], np.int64)) for row in {0, len(dataset) - 1})
    return max(1, min(_BATCH_FRAMES, _BATCH_BYTES // max(size, 1)))


# -- the folder ----------------------------------------------------------------------------------------------------


def _open_folder(
    request: ExtractRequest, dataset: FrameDataset, rows: NDArray[np.int64], forms: Sequence[Form]
) -> dict[str, dict[str, Any]]:
    """Make the folder, or check that it holds the same extract; return the lines of files that are complete.

    Raises:
        UsageError: If it holds something else, and nobody forces it.
    """
    output = request.output
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file; -o needs a folder", hint="choose another folder with -o")
    inside = output.resolve()
    if (output / MANIFEST_NAME).exists() or dataset.path.resolve() in (inside, *inside.parents):
        raise UsageError(f"{output} is a dataset, or inside of one", hint="choose another folder with -o")
    records = dataset.manifest.representations
    asked = {
        "dataset": location_of(dataset.path),
        "frames": dataset.index.take(rows).digest,
        "files": {f"{form.name}.{form.ending}": form.is_picture for form in forms},
        "representations": {name: records[name].config_hash for name in dataset.representations},
    }
    try:
        before = json.loads(read_regular(output / REQUEST_NAME, max_bytes=MAX_DOCUMENT_BYTES))
    except FileNotFoundError:
        before = None
    except ValueError:
        before = {}
    if before == asked and not request.force:
        return _complete_files(output)
    if not request.force and output.exists() and any(output.iterdir()):
        what = "files of another extract" if before is not None else "something else"
        raise UsageError(f"{output} holds {what}", hint="choose a new folder with -o, or overwrite files with --force")
    make_folder(output)
    (output / INDEX_NAME).unlink(missing_ok=True)
    write_atomic(output / REQUEST_NAME, (json.dumps(asked, indent=2) + "\n").encode())
    return {}


def _complete_files(output: Path) -> dict[str, dict[str, Any]]:
    """Return the lines of an index whose files are there in their full size, and write the index anew with these."""
    complete: dict[str, dict[str, Any]] = {}
    try:
        with os.fdopen(open_regular(output / INDEX_NAME), "r", encoding="utf-8", errors="replace") as file:
            for text in file:
                try:
                    line = json.loads(text)
                    path, size = line["path"], line["bytes"]
                    _line(line)
                except (ValueError, TypeError, KeyError, RecursionError):  # the last line of a run that was killed
                    continue
                if isinstance(path, str) and ".." not in path and _size_of(output / path) == size:
                    complete[path] = line
    except FileNotFoundError:
        return {}
    write_atomic(output / INDEX_NAME, (_line(line) for line in complete.values()))
    return complete


def _size_of(path: Path) -> int | None:
    try:
        return path.stat(follow_symlinks=False).st_size
    except (OSError, ValueError):
        return None


def _line(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


# -- writing -------------------------------------------------------------------------------------------------------


class _Writer:
    """Writes the files of batches that come in the order of videos and frames."""

    def __init__(
        self,
        request: ExtractRequest,
        forms: Sequence[Form],
        done: Mapping[str, Any],
        report: ExtractReport,
        *,
        rate_of: Callable[[str], float],
    ) -> None:
        self._output = request.output
        self._forms = forms
        self._done = done
        self._report = report
        self._rate_of = rate_of
        self._video: str | None = None
        self._movies: dict[Form, Movie] = {}
        self._pool = ThreadPoolExecutor(request.threads or usable_cpus(), thread_name_prefix="vrekit-extract")
        with storage_errors(self._output / INDEX_NAME):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._index = os.fdopen(open_to_change(self._output / INDEX_NAME, flags), "ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._finish_movies()
        finally:
            self._pool.shutdown(cancel_futures=True)
            for movie in self._movies.values():
                movie.abort()
            with storage_errors(self._output / INDEX_NAME):
                self._index.close()

    def write(self, batch: Mapping[str, Any]) -> None:
        """Write the files of a batch, and their lines."""
        jobs: list[tuple[Form, tuple[str, int, float], Future[Any]]] = []
        places = zip(batch["video_id"], batch["frame_index"].tolist(), batch["pts_seconds"].tolist(), strict=True)
        for at, (video, frame, pts) in enumerate(places):
            for form in self._forms:
                path = form.path(video, frame)
                if path in self._done:
                    continue
                value = batch[form.name][at]
                if value is None:
                    self._report.missing += 1
                    continue
                array = np.array(value) if isinstance(value, str) else value.numpy()
                is_valid = bool(batch[f"{form.name}.valid"][at])
                if form.codec is None:
                    job: Future[Any] = self._pool.submit(picture_of, form.spec, array, is_valid)
                else:
                    job = self._pool.submit(self._write_file, form, array, is_valid, path)
                jobs.append((form, (video, frame, pts), job))
        for form, (video, frame, pts), job in jobs:  # in order: a video gets its pictures one after the other
            if form.codec is None:
                self._add_to_movie(form, video, frame, job.result())
            else:
                self._add_line(form, job.result(), video, frame, None if np.isnan(pts) else pts)
        with storage_errors(self._output / INDEX_NAME):
            self._index.flush()

    def _write_file(self, form: Form, array: NDArray[Any], is_valid: bool, path: str) -> dict[str, Any]:
        try:
            content, data = form.encoded(array, is_valid)
        except CodecError as error:
            raise CodecError(f"{path}: {error.message}", hint=error.hint) from error
        target = self._target(path)
        temporary = target.with_name(f".{target.name}.tmp")
        with storage_errors(target):
            temporary.unlink(missing_ok=True)
            with os.fdopen(open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(data)
            temporary.replace(target)
        dtype = "str" if content.dtype.kind == "U" else content.dtype.name
        return {"path": path, "dtype": dtype, "shape": list(content.shape), "valid": is_valid, "bytes": len(data)}

    def _target(self, path: str) -> Path:
        video, _, name = path.rpartition("/")
        with storage_errors(self._output / path):
            return make_folder(self._output, video) / name

    def _add_line(
        self,
        form: Form,
        written: Mapping[str, Any],
        video: str,
        frame: int | None = None,
        pts_seconds: float | None = None,
    ) -> None:
        line = {
            "path": written["path"],
            "video_id": video,
            "frame_index": frame,
            "pts_seconds": pts_seconds,
            "representation": form.name,
            "kind": str(form.spec.kind),
            "form": "picture" if form.is_picture else "values",
            "unit": None if form.is_picture else form.spec.unit,
            **written,
        }
        with storage_errors(self._output / INDEX_NAME):
            self._index.write(_line(line))
        self._report.files += 1
        self._report.size_bytes += written["bytes"]

    # -- videos ----------------------------------------------------------------------------------------------------

    def _add_to_movie(self, form: Form, video: str, frame: int, picture: Picture) -> None:
        if video != self._video:
            self._finish_movies()
            self._video = video
        movie = self._movies.get(form)
        if movie is None:
            movie = self._movies[form] = Movie(form.path(video, 0), self._rate_of(video))
        movie.add(frame, picture)

    def _finish_movies(self) -> None:
        while self._movies and self._video is not None:
            form, movie = next(iter(self._movies.items()))
            target = self._target(movie.path)
            temporary = target.with_name(f".{target.name}.tmp")
            with storage_errors(target):
                movie.finish_to(temporary)
                temporary.replace(target)
                size = target.stat().st_size
            del self._movies[form]
            shown = {"frames": ranges(np.array(movie.frames)), "fps": round(movie.fps, 6)}
            self._add_line(form, {"path": movie.path, **shown, "bytes": size}, self._video)
