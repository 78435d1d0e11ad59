"""What contracts need of pytest, without pytest."""

import re
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def raises(error: type[BaseException], match: str = "") -> Iterator[None]:
    """Assert that the body raises an error whose message has a match of `match` in it."""
    try:
        yield
    except error as caught:
        assert re.search(match, str(caught)), f"the message {str(caught)!r} has no match of {match!r}"
    else:
        raise AssertionError(f"no {error.__name__} was raised")
