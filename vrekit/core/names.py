"""Names and keys: what may stand in a path or a tar member, and how a sample's key is spelled.

A key is `<video_id>/<frame_index:08d>`. It holds no dot, because WebDataset splits a member's name at the first
dot of its last part: `car/00000012.canny.png` is key `car/00000012`, extension `canny.png`.
"""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import PurePath

from vrekit.core.errors import UsageError

REPRESENTATION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_()+\-]*")
VIDEO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]*")
RUN_ID = VIDEO_ID  # vrekit's own are `20261120T235443512-3f9a2c`; imported runs keep theirs
GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_()+]*")  # no `-`: that ends it in a shard's name
MAX_GROUP_LENGTH = 160  # a representation's name, an ending for its pictures, and what keeps groups apart
# Fields of every frame: keys of a batch and columns of a Lance table, beside those of the representations.
RESERVED_NAMES = ("frame_index", "key", "pts_seconds", "run_id", "video_id")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+):/+")
MAX_NAME_LENGTH = 100  # a tar header's name field holds 100 bytes; longer ones need extension records
MAX_REPRESENTATIONS = 4096  # of a config or a dataset
MAX_DEPENDENCIES = 256  # of a representation
MAX_SUGGESTIONS = 20  # how many mistakes of one kind get a "did you mean": each looks at all names


def check_representation_name(name: str) -> str:
    """Return `name` if it is a legal representation name.

    Raises:
        UsageError: If it is not; a name becomes part of file names, so `..`, `/` and dots are refused.
    """
    if not REPRESENTATION_NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise UsageError(
            f"representation name {name[:MAX_NAME_LENGTH]!r} is not allowed",
            hint="use letters, digits, '_', '-', '+', '(' and ')', starting with a letter or digit, "
            f"at most {MAX_NAME_LENGTH} characters",
        )
    if name in RESERVED_NAMES:
        raise UsageError(
            f"representation name {name!r} is taken: every frame has a field of that name",
            hint=f"choose another name; taken are {', '.join(RESERVED_NAMES)}",
        )
    return name


def check_video_id(video_id: str) -> str:
    """Return `video_id` if it is legal (letters, digits, `_`, `-`), else raise UsageError."""
    if not VIDEO_ID.fullmatch(video_id) or len(video_id) > MAX_NAME_LENGTH:
        raise UsageError(
            f"video id {video_id[:MAX_NAME_LENGTH]!r} is not allowed",
            hint="use letters, digits, '_' and '-', starting with a letter or digit, "
            f"at most {MAX_NAME_LENGTH} characters",
        )
    return video_id


def check_run_id(run_id: str) -> str:
    """Return `run_id` if it is legal (letters, digits, `_`, `-`: it is part of file names), else raise UsageError."""
    if not RUN_ID.fullmatch(run_id) or len(run_id) > MAX_NAME_LENGTH:
        raise UsageError(f"run id {run_id[:MAX_NAME_LENGTH]!r} is not allowed")
    return run_id


def check_group(group: str) -> str:
    """Return the name of a group of shards if it is legal, else raise UsageError."""
    if not GROUP.fullmatch(group) or len(group) > MAX_GROUP_LENGTH:
        raise UsageError(f"group {group[:MAX_NAME_LENGTH]!r} is not allowed")
    return group


def video_id_from_path(path: str | PurePath) -> str:
    """Return the slug of a file or folder name: `My clip.v2.mp4` becomes `My_clip_v2`."""
    pure = PurePath(path)
    stem = pure.stem if pure.suffix else pure.name
    slug = re.sub(r"[^A-Za-z0-9_\-]+", "_", stem).strip("_-")[:MAX_NAME_LENGTH]
    return slug or "video"


NOT_UTF8_HINT = "datasets keep names as UTF-8 text: rename it, or give a link to it (`ln -s`) that has such a name"


def is_utf8(path: str | os.PathLike[str]) -> bool:
    """Return whether a path can be kept as text; Linux also has file names that are in no or another encoding."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a URL (`s3://bucket/x`); `Path` turns `s3://b/x` into `s3:/b/x`, so one slash tells."""
    return _URL.match(os.fspath(path)) is not None


def check_local(path: str | os.PathLike[str]) -> None:
    """Raise UsageError if a path is a URL (`s3://bucket/x`) or stands for standard input (`-`).

    `Path` turns `s3://b/x` into `s3:/b/x`, so one slash tells. A colon without a slash behind it may be in any name.
    """
    text = os.fspath(path)
    if match := _URL.match(text):
        url = f"{match[1]}://{text[match.end() :]}"
        if match[1].lower() == "file":
            raise UsageError(f"{url} is a URL", hint="give the path alone, without file://")
        raise UsageError(
            f"{url} is a URL; this needs a local file or folder",
            hint="take a local folder, and copy from or to it; for a folder whose name looks like a URL give its "
            "absolute path",
        )
    if text == "-":
        raise UsageError(
            "- stands for standard input or output; a file or folder is needed", hint="write it to a file first"
        )


def sample_key(video_id: str, frame_index: int) -> str:
    """Return the key of one frame: `sample_key("car", 12) == "car/00000012"`."""
    return f"{video_id}/{frame_index:08d}"


def parse_key(key: str) -> tuple[str, int]:
    """Return (video_id, frame_index) of a key; the inverse of `sample_key`.

    Raises:
        UsageError: If `key` is not `<video_id>/<digits>`.
    """
    video_id, _, digits = key.rpartition("/")
    if not VIDEO_ID.fullmatch(video_id) or not digits.isdecimal():
        raise UsageError(f"not a sample key: {key!r}", hint="a key looks like car-detection/00000012")
    return video_id, int(digits)


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most like `name`, or None when nothing is close."""
    matches = difflib.get_close_matches(name, list(candidates), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return `" (did you mean 'canny'?)"`, or an empty string when nothing is close."""
    match = closest(name, candidates)
    return f" (did you mean {match!r}?)" if match else ""
