"""Where data lies: a path or a URL, checked and without secrets."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from vrekit.core.errors import DatasetError, UsageError
from vrekit.core.names import did_you_mean

OBJECT_SCHEMES = ("s3", "gs", "az", "http", "https", "memory")
FILESYSTEM_SCHEMES = ("hf", "sftp")  # read through fsspec
SCHEMES = ("file", *OBJECT_SCHEMES, *FILESYSTEM_SCHEMES)
MAX_NAME_BYTES = 1024  # the longest key that S3 allows
_MAX_URL_LENGTH = 2000

# `Path` turns `s3://b/x` into `s3:/b/x`, so one slash is enough. A colon without a slash may be part of any file name.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/+")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]*")
_HOST = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.\-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True, slots=True)
class Location:
    """A folder, local or behind a URL; `parse_location` makes one from text.

    Attributes:
        scheme: `file` for a local path, else the scheme of the URL.
        root: The local path, or what follows `scheme://`, without a slash at its end.
    """

    scheme: str
    root: str

    @property
    def is_local(self) -> bool:
        """Whether it is a path of this machine."""
        return self.scheme == "file"

    @property
    def path(self) -> Path:
        """The local path.

        Raises:
            UsageError: If it is a URL.
        """
        if not self.is_local:
            raise UsageError(f"{self} is a URL; a local folder is needed here", hint="copy it to a local folder first")
        return Path(self.root)

    @property
    def bucket(self) -> str:
        """The first part of a URL: a bucket, a container, or a host."""
        return self.root.partition("/")[0]

    @property
    def prefix(self) -> str:
        """What follows the bucket or host in a URL, without a slash at either end; may be empty."""
        return self.root.partition("/")[2]

    @property
    def name(self) -> str:
        """The last part of the path or URL."""
        return Path(self.root).name if self.is_local else self.root.rpartition("/")[2]

    def child(self, name: str) -> "Location":
        """Return the location of a folder below this one; `name` is checked by `check_name`."""
        check_name(name)
        return Location(self.scheme, str(self.path / name) if self.is_local else f"{self.root}/{name}")

    def __str__(self) -> str:
        """Return the local path, or the URL."""
        return self.root if self.is_local else f"{self.scheme}://{self.root}"


def parse_location(text: str | os.PathLike[str]) -> Location:
    """Return the location that a path or a URL names.

    Args:
        text: A path, or a URL such as `s3://bucket/folder`, `az://container/folder`, `https://host/folder`,
            `memory://name` or `file:///folder`.

    Raises:
        UsageError: If the scheme is not known, or the URL has a password, a query string, `..` or the like. The message
            shows no secrets.
    """
    text = os.fspath(text)
    if "\0" in text or not text:
        raise UsageError(f"{text!r} is no path", hint="give the path of a folder, or a URL")
    if text == "-":
        raise UsageError(
            "- stands for standard input or output; a file or folder is needed", hint="write it to a file first"
        )
    match = _URL.match(text)
    if match is None:
        return Location("file", text)
    scheme, rest = match[1].lower(), text[match.end() :]
    shown = f"{match[1]}://{_without_secrets(rest)}"
    if scheme not in SCHEMES:
        raise UsageError(
            f"{shown}: the scheme {scheme!r} is not known{did_you_mean(scheme, SCHEMES)}",
            hint=f"give a local path or a URL with {', '.join(f'{known}://' for known in SCHEMES)}; "
            "for a local folder whose name looks like a URL give its absolute path",
        )
    if "?" in rest or "#" in rest:
        raise UsageError(
            f"{shown}: a URL with a query or a fragment names one file, not a folder",
            hint="leave out what follows ? or #; access keys are read from the environment",
        )
    if scheme == "file":
        return _local_location(rest, shown)
    return Location(scheme, _checked_root(scheme, rest, shown))


def _local_location(rest: str, shown: str) -> Location:
    host, _, path = rest.partition("/")
    path = unquote(path if host == "localhost" else rest)
    if "\0" in path:
        raise UsageError(f"{shown} is no path", hint="give the path alone, without file://")
    return Location("file", f"/{path}")


def _checked_root(scheme: str, rest: str, shown: str) -> str:
    root = rest.rstrip("/")
    host, _, prefix = root.partition("/")
    user, at, host = host.rpartition("@")
    if at and (scheme != "sftp" or ":" in user):
        raise UsageError(
            f"{shown}: names and passwords do not belong in a URL",
            hint="set them in the environment, or in the SSH configuration for sftp://",
        )
    pattern = _HOST if scheme in ("http", "https", "sftp") else _BUCKET
    if not pattern.fullmatch(host) or not _BUCKET.fullmatch(user or "x") or len(root) > _MAX_URL_LENGTH:
        raise UsageError(
            f"{shown} names no bucket or server", hint="a URL looks like s3://bucket/folder or https://host/folder"
        )
    decoded = unquote(prefix) if scheme.startswith("http") else prefix
    if prefix and not (_is_relative_name(prefix) and _is_relative_name(decoded)):
        raise UsageError(f"{shown} has a part that is empty, '.' or '..'", hint="give the whole path, as it is stored")
    return root


def _without_secrets(rest: str) -> str:
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    shown = f"{'…@' if '@' in host else ''}{host.rpartition('@')[2]}{slash}{path}"
    return _CONTROL.sub("�", shown[:_MAX_URL_LENGTH])


def _is_relative_name(name: str) -> bool:
    return not _CONTROL.search(name) and not any(part in ("", ".", "..") for part in name.split("/"))


def check_name(name: str) -> str:
    """Return the name of an object below a location if it is one: relative, with `/` between its parts.

    Raises:
        DatasetError: If it is absolute, empty, too long, or has parts such as `..`.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= MAX_NAME_BYTES or not _is_relative_name(name):
        raise DatasetError(f"{name[:100]!r} is not the name of a file inside a dataset")
    return name
