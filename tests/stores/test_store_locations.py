"""Paths and URLs: which are taken, and that messages show no secrets."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrekit.core.errors import MissingDependencyError, UsageError, VrekitError
from vrekit.core.stores import Location, open_store, parse_location

GOOD = {
    "a/b": ("file", "a/b"),
    "/a/b/": ("file", "/a/b/"),
    "./s3:x": ("file", "./s3:x"),
    "C:/x": ("file", "C:/x"),
    "/tmp/s3://x": ("file", "/tmp/s3://x"),
    "what?.d": ("file", "what?.d"),
    "file:///a/b%20c": ("file", "/a/b c"),
    "file://localhost/a": ("file", "/a"),
    "s3://bucket/a/b": ("s3", "bucket/a/b"),
    "s3://bucket": ("s3", "bucket"),
    "S3://bucket/a b/ä/": ("s3", "bucket/a b/ä"),
    "gs://my-bucket/x": ("gs", "my-bucket/x"),
    "az://container/x": ("az", "container/x"),
    "http://127.0.0.1:8000/x%20y": ("http", "127.0.0.1:8000/x%20y"),
    "https://[::1]:80/x": ("https", "[::1]:80/x"),
    "memory://name/x": ("memory", "name/x"),
    "hf://datasets/me/it": ("hf", "datasets/me/it"),
    "sftp://me@host:22/srv/x": ("sftp", "me@host:22/srv/x"),
}
BAD = {
    "": "no path",
    "-": "standard input",
    "a\0b": "no path",
    "ftp://host/x": "'ftp' is not known",
    "s4://b/x": "'s4' is not known",
    "sftpd://b/x": "'sftpd' is not known \\(did you mean 'sftp'\\?\\)",
    "s3://": "names no bucket",
    "s3:///x": "",
    "s3://b/../x": "'\\.\\.'",
    "s3://b/./x": "'\\.'",
    "s3://b//x": "is empty",
    "s3://b/x\\y": "part",
    "s3://b/x\ny": "part",
    "s3://b:80/x": "names no bucket",
    "https://host/%2e%2e/x": "'\\.\\.'",
    "https://host/a%2f%2fb": "is empty",
    "https://host/x?sig=geheim": "a query",
    "https://host/x#geheim": "a fragment",
    "https://me:geheim@host/x": "do not belong in a URL",
    "https://geheim@host/x": "do not belong in a URL",
    "s3://key:geheim@bucket/x": "do not belong in a URL",
    "sftp://me:geheim@host/x": "do not belong in a URL",
    "foo://me:geheim@host/x?k=geheim": "is not known",
    "https://ho st/x": "names no bucket or server",
    "zip://a::https://host/x": "is not known",
    f"s3://b/{'x' * 3000}": "names no bucket",
}


@pytest.mark.parametrize("text", GOOD)
def test_locations(text: str) -> None:
    location = parse_location(text)
    assert (location.scheme, location.root) == GOOD[text]
    if not location.is_local:
        assert parse_location(str(location)) == location
        assert parse_location(Path(text)).root == location.root  # `Path` leaves one slash of two


@pytest.mark.parametrize("text", BAD)
def test_what_is_refused(text: str) -> None:
    if text == "s3:///x":  # one slash is as good as two, so three are, too
        assert parse_location(text) == Location("s3", "x")
        return
    with pytest.raises(UsageError, match=BAD[text]) as caught:
        parse_location(text)
    assert caught.value.hint
    assert "geheim" not in caught.value.message + caught.value.hint
    assert "\n" not in caught.value.message


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="s3:/@?#.%a\\-", max_size=30).map(lambda text: f"s3://{text}"))
def test_any_text_gives_a_location_or_a_usage_error(text: str) -> None:
    try:
        location = parse_location(text)
    except UsageError:
        return
    if location.scheme != "file":
        assert parse_location(str(location)) == location
        assert not {"", ".", ".."} & set(location.root.split("/"))
        assert not set("?#") & set(location.root)
        assert "@" not in location.bucket or location.scheme == "sftp"


def test_parts_of_a_location() -> None:
    location = parse_location("s3://bucket/a/b")
    assert (location.bucket, location.prefix, location.name) == ("bucket", "a/b", "b")
    assert str(location.child("c/d")) == "s3://bucket/a/b/c/d"
    with pytest.raises(VrekitError):
        location.child("../c")
    with pytest.raises(UsageError, match="s3://bucket/a/b is a URL; a local folder is needed here"):
        _ = location.path
    assert parse_location("a/b").child("c").path == Path("a/b/c")


def test_packages_that_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(MissingDependencyError, match="s3://b/x needs the package obstore") as caught:
        open_store("s3://b/x")
    assert "vrekit[cloud]" in str(caught.value.hint)
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(MissingDependencyError, match="needs fsspec and huggingface_hub") as caught:
        open_store("hf://datasets/a/b")
    assert "vrekit[fsspec]" in str(caught.value.hint)
