"""Objects in S3, Google Cloud Storage, Azure, behind HTTP (read-only) and in memory, through `obstore`.

Every request has a time-out and is tried again by one rule, `base.retry`; the client's own retries are off. The answer
to a write may be lost: each write carries a token in the object's metadata. When a write is refused, the token there
says whether an earlier attempt of the same write was the reason.
"""

import mmap
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from vrekit.core.errors import (
    MissingDependencyError,
    MissingObjectError,
    ObjectChangedError,
    ObjectExistsError,
    StorageError,
    VrekitError,
)
from vrekit.core.files import open_regular
from vrekit.core.stores.base import (
    MAX_LISTED,
    MAX_OBJECT_BYTES,
    ObjectInfo,
    PassingError,
    RangeReader,
    ReadOnlyStore,
    Store,
    StoreLimits,
    Versioned,
    retry,
)
from vrekit.core.stores.location import Location, check_name
from vrekit.core.stores.object_errors import RangeError, changed_error, named_errors

MAX_PUT_BYTES = 5000 << 20  # of one upload, the smallest of the limits of S3, Google and Azure
_STEP_BYTES = 16 << 20
_UPLOAD_BYTES_PER_SECOND = 1_000_000
_TOKEN = "vrekitput"  # Azure takes only names that are identifiers
_PAGE = 1000
_NO_ETAG = "modified:"  # some servers give only a time
_T = TypeVar("_T")

_memory: dict[str, Any] = {}  # the stores behind memory:// URLs of this process, by name
_first_process: int | None = None  # that used obstore: its threads do not survive a fork


class ObjectReader(RangeReader):
    """Reads ranges of one object by GET requests, several at once."""

    max_gap_bytes = 256 << 10  # less is read faster than another request answers
    step_bytes = _STEP_BYTES

    def __init__(self, store: "ObjectStore", name: str, etag: str | None) -> None:
        super().__init__(store.where(name))
        self._store, self._name, self._etag = store, name, etag

    def size_bytes(self) -> int:
        """Return the size of the object."""
        return self._store.head(self._name).size_bytes

    def _read(self, start: int, length: int) -> memoryview:
        options: dict[str, Any] = {"range": (start, start + length)}
        if self._etag is not None and _is_strong(self._etag):
            options["if_match"] = self._etag
        return self._ask(lambda client, key: memoryview(client.get(key, options=options).bytes()), start)

    def _read_all(self, spans: Sequence[tuple[int, int]]) -> Sequence[bytes | memoryview]:
        if self._etag is not None or len(spans) < 2:
            return super()._read_all(spans)
        starts, lengths = [start for start, _ in spans], [length for _, length in spans]
        return self._ask(
            lambda client, key: [
                memoryview(part) for part in client.get_ranges(key, starts=starts, lengths=lengths, coalesce=0)
            ],
            max(starts),
        )

    def _ask(self, question: Callable[[Any, str], _T], last_start: int) -> _T:
        try:
            return self._store.ask(self._name, question)
        except RangeError:
            size = self.size_bytes()
            if last_start >= size:
                raise self._ends_at(size, last_start + 1) from None
            raise


class ObjectStore(Store):
    """A prefix of a bucket, or a process's own memory.

    Args:
        location: With a scheme of `OBJECT_SCHEMES`.
        limits: Time-outs and retries.

    Raises:
        MissingDependencyError: If obstore is not installed.
    """

    def __init__(self, location: Location, limits: StoreLimits | None = None) -> None:
        super().__init__(location)
        self.limits = limits or StoreLimits()
        self._prefix = f"{location.prefix}/" if location.scheme == "memory" and location.prefix else ""
        self._client = self._make_client(self.limits.timeout_seconds)

    def __reduce__(self) -> tuple[Any, ...]:
        home = os.getpid() if self.location.scheme == "memory" else None
        return _unpickle, (type(self), self.location, self.limits, home)

    def _make_client(self, timeout_seconds: float) -> Any:
        location = self.location
        try:
            from obstore import store as stores
        except ImportError:
            raise MissingDependencyError(
                f"{location} needs the package obstore", hint='pip install "vrekit[cloud]"'
            ) from None
        if location.scheme == "memory":
            return _memory.setdefault(location.bucket, stores.MemoryStore())
        options: dict[str, Any] = {
            "retry_config": {"max_retries": 0, "retry_timeout": timedelta(seconds=self.limits.give_up_seconds)},
            "client_options": {
                "timeout": timedelta(seconds=timeout_seconds),
                "connect_timeout": timedelta(seconds=min(10.0, timeout_seconds)),
            },
        }
        prefix = location.prefix or None
        with named_errors(str(location), location.scheme):
            if location.scheme == "s3":
                endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
                options["client_options"]["allow_http"] = endpoint.startswith("http://")
                return stores.S3Store(location.bucket, prefix=prefix, disable_bulk_delete=True, **options)
            if location.scheme == "gs":
                return stores.GCSStore(location.bucket, prefix=prefix, **options)
            if location.scheme == "az":
                return stores.AzureStore(location.bucket, prefix=prefix, **options)
            options["client_options"]["allow_http"] = location.scheme == "http"
            return stores.HTTPStore(str(location), **options)

    def ask(self, name: str, question: Callable[[Any, str], _T]) -> _T:
        """Return what a question to the client about an object gives; with retries, and errors of ours."""
        key = self._prefix + check_name(name)
        return retry(self.limits, partial(self._ask_once, self._client, name, key, question))

    def _ask_once(self, client: Any, name: str, key: str, question: Callable[[Any, str], _T]) -> _T:
        _check_process(self.location)
        with named_errors(self.where(name), self.location.scheme):
            return question(client, key)

    def read_if_changed(self, name: str, etag: str | None, *, max_bytes: int = MAX_OBJECT_BYTES) -> Versioned | None:
        """Return the content of an object and its etag, None if it still has `etag`."""

        def get(client: Any, key: str) -> tuple[ObjectInfo, bytes | None] | None:
            from obstore.exceptions import NotModifiedError

            try:
                options = {"if_none_match": etag} if etag is not None and not etag.startswith(_NO_ETAG) else None
                result = client.get(key, options=options)
            except NotModifiedError:
                return None
            info = _info(name, result.meta)
            self._check_size(name, info.size_bytes, max_bytes)
            return info, bytes(result.bytes()) if info.size_bytes <= _STEP_BYTES else None

        found = self.ask(name, get)
        if found is None or found[0].etag == etag:
            return None
        info, data = found
        if data is None:  # too large for the time-out of one request
            data = bytes(self.reader(name, etag=info.etag).read_range(0, info.size_bytes))
        return Versioned(data, info.etag)

    def reader(self, name: str, *, etag: str | None = None) -> ObjectReader:
        """Return what reads ranges of an object."""
        return ObjectReader(self, check_name(name), etag)

    def head(self, name: str) -> ObjectInfo:
        """Return size and etag of an object."""
        return self.ask(name, lambda client, key: _info(name, client.head(key)))

    def list(self, prefix: str = "", *, max_count: int = MAX_LISTED) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix, a page at a time."""
        top = self._prefix + check_name(prefix) if prefix else self._prefix.rstrip("/")
        count, last = 0, None
        pages: Any = None

        def next_page() -> Any:
            nonlocal pages
            if pages is None:  # a listing that broke goes on after what it last gave
                pages = self._client.list(top or None, offset=last, chunk_size=_PAGE)
            try:
                return next(pages, None)
            except BaseException:
                pages = None
                raise

        def ask_page() -> Any:
            _check_process(self.location)
            with named_errors(str(self.location), self.location.scheme):
                return next_page()

        while (page := retry(self.limits, ask_page)) is not None:
            for meta in page:
                last = meta["path"]
                name = last.removeprefix(self._prefix)
                if not name or name == prefix:  # what consoles store to show an empty folder
                    continue
                count += 1
                self._check_count(count, max_count)
                yield _info(check_name(name), meta)

    def put_if_absent(self, name: str, data: bytes | Path) -> str:
        """Write a new object by a conditional PUT; return its etag.

        An object without a token of vrekit that has the same content counts as written by this call.
        """
        with _content(data) as content:
            return self._write(name, content, "create")

    def compare_and_swap(self, name: str, data: bytes, etag: str) -> str:
        """Replace an object by a conditional PUT if it still has `etag`; return its new etag."""
        mode: dict[str, Any] = {"e_tag": etag}
        if self.location.scheme == "gs":  # which compares generations
            try:
                meta = self.ask(name, lambda client, key: client.head(key))
            except MissingObjectError:
                raise changed_error(self.where(name)) from None
            if meta["e_tag"] != etag:
                raise changed_error(self.where(name))
            mode["version"] = meta["version"]
        return self._write(name, memoryview(data), mode)

    def put(self, name: str, data: bytes) -> str:
        """Write an object, whatever was there; return its etag."""
        return self._write(name, memoryview(data), "overwrite")

    def _write(self, name: str, data: memoryview, mode: str | dict[str, Any]) -> str:
        if len(data) > MAX_PUT_BYTES:
            raise StorageError(
                f"{self.where(name)} would have {len(data)} bytes, one upload takes at most {MAX_PUT_BYTES}",
                hint="write smaller shards: --shard-size 1GB",
            )
        client = self._client
        if len(data) > _STEP_BYTES and self.location.scheme != "memory":
            client = self._make_client(self.limits.timeout_seconds + len(data) / _UPLOAD_BYTES_PER_SECOND)
        key, token = self._prefix + check_name(name), uuid.uuid4().hex

        def put(client: Any, key: str) -> str:
            attributes = {_TOKEN: token}
            result = client.put(key, data, mode=mode, attributes=attributes, use_multipart=False)
            return str(result["e_tag"])

        def attempt() -> str:
            try:
                return self._ask_once(client, name, key, put)
            except (ObjectExistsError, ObjectChangedError) as error:
                return self._after_refusal(name, data, token, mode, error)

        return retry(self.limits, attempt)

    def _after_refusal(
        self, name: str, data: memoryview, token: str, mode: str | dict[str, Any], error: StorageError
    ) -> str:
        """Return the etag if an earlier attempt of the same write was the reason; else raise what it means."""
        # S3 also refuses (409) while another conditional write is under way, which may fail: then nothing has changed.
        busy = PassingError(error.message, hint="try again later")
        try:
            if (etag := self._written(name, data, token)) is not None:
                return etag
            if isinstance(mode, str):
                raise ObjectExistsError(f"{self.where(name)} is there already") if mode == "create" else busy
            raise busy if self.head(name).etag == mode["e_tag"] else changed_error(self.where(name))
        except MissingObjectError:
            raise busy if isinstance(mode, str) else changed_error(self.where(name)) from None

    def _written(self, name: str, data: memoryview, token: str) -> str | None:
        """Return the etag of an object if it is what this call has just written, else None."""
        result = self.ask(name, lambda client, key: client.get(key, options={"head": True}))
        info = _info(name, result.meta)
        stored = result.attributes.get(_TOKEN)
        if stored is not None:
            return info.etag if stored == token else None
        same = info.size_bytes == len(data) and self._has_content(name, data, info.etag)
        return info.etag if same else None

    def _has_content(self, name: str, data: memoryview, etag: str) -> bool:
        reader = self.reader(name, etag=etag)
        try:
            for start in range(0, len(data), _STEP_BYTES):
                part = data[start : start + _STEP_BYTES]
                if reader.read_range(start, len(part)) != part:
                    return False
        except ObjectChangedError:
            return False
        return True

    def delete(self, name: str) -> None:
        """Delete an object; that there is none is no error."""
        with suppress(MissingObjectError):
            self.ask(name, lambda client, key: client.delete(key))


class HttpStore(ReadOnlyStore, ObjectStore):
    """A folder behind http:// or https://; it cannot be listed."""

    def list(self, prefix: str = "", *, max_count: int = MAX_LISTED) -> Iterator[ObjectInfo]:
        """Raise StorageError: HTTP has no listings."""
        raise StorageError(
            f"{self.location} cannot be listed: HTTP has no folders", hint="name the files, or use a copy of the folder"
        )


def _unpickle(kind: type[ObjectStore], location: Location, limits: StoreLimits, home: int | None) -> ObjectStore:
    if home is not None and home != os.getpid():
        raise StorageError(
            f"{location} lies in the memory of another process", hint="use threads, or a folder, instead of processes"
        )
    return kind(location, limits)


def _check_process(location: Location) -> None:
    """Raise StorageError in a forked process: obstore would wait for ever for threads that were not copied."""
    global _first_process
    if _first_process is None:
        _first_process = os.getpid()
    elif _first_process != os.getpid():
        raise StorageError(
            f"{location} cannot be used in a forked process",
            hint='start worker processes with multiprocessing_context="forkserver" or "spawn", or use threads',
        )


@contextmanager
def _content(data: bytes | Path) -> Iterator[memoryview]:
    """Give the bytes of a file without reading it into memory: its pages are mapped."""
    if not isinstance(data, Path):
        yield memoryview(data)
        return
    try:
        descriptor = open_regular(data)
        try:
            size = os.fstat(descriptor).st_size
            yield memoryview(mmap.mmap(descriptor, size, prot=mmap.PROT_READ)) if size else memoryview(b"")
        finally:
            os.close(descriptor)
    except VrekitError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {data}: {error.strerror or error}") from error


def _info(name: str, meta: Any) -> ObjectInfo:
    etag = meta["e_tag"] or f"{_NO_ETAG}{meta['last_modified'].timestamp():.0f}-{meta['size']}"
    return ObjectInfo(name, int(meta["size"]), str(etag))


def _is_strong(etag: str) -> bool:
    """Return whether a server compares it in If-Match: weak ones never match there."""
    return not etag.startswith((_NO_ETAG, "W/"))
