import pytest

from vrekit.core.errors import UsageError
from vrekit.core.names import RESERVED_NAMES, check_representation_name
from vrekit.readers.batch_reader import FRAME_FIELDS


@pytest.mark.parametrize("name", RESERVED_NAMES)
def test_a_representation_cannot_be_named_like_a_field_of_every_frame(name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is taken"):
        check_representation_name(name)
    assert check_representation_name(f"{name}2") == f"{name}2"


def test_every_field_of_a_batch_is_reserved() -> None:
    assert set(FRAME_FIELDS) <= set(RESERVED_NAMES)
