"""What an error tells in a traceback, and how messages count."""

import pickle
import traceback

import pytest

from vrekit.core.counting import counted
from vrekit.core.errors import ConfigError, DatasetError, VrekitError


@pytest.mark.parametrize("kind", [DatasetError, ConfigError])
def test_a_traceback_shows_the_hint_below_the_message(kind: type[VrekitError]) -> None:
    error = kind("it is gone", hint="look again")
    for one in (error, pickle.loads(pickle.dumps(error))):
        assert "".join(traceback.format_exception_only(one)).splitlines()[-2:] == [
            f"vrekit.core.errors.{kind.__name__}: it is gone",
            "hint: look again",
        ]
        assert (str(one), one.hint) == ("it is gone", "look again")
    assert "hint" not in "".join(traceback.format_exception_only(kind("it is gone")))


def test_one_is_no_plural() -> None:
    assert [counted(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert counted(2, "dependency", "dependencies") == "2 dependencies"
