"""Random sequences of operations, against a dictionary."""

import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stores.conftest import QUICK, new_url
from vrekit.core.errors import DatasetError, MissingObjectError, ObjectChangedError, ObjectExistsError
from vrekit.core.stores import open_store

_names = st.sampled_from(["a", "b/c", "b/d"])
_data = st.binary(max_size=6)
_operations = st.lists(
    st.tuples(st.sampled_from(["absent", "put", "delete", "read"]), _names, _data)
    | st.tuples(st.just("swap"), _names, st.tuples(_data, st.integers(0, 5)))
    | st.tuples(st.just("range"), _names, st.tuples(st.integers(0, 7), st.integers(0, 7))),
    max_size=25,
)


@pytest.mark.parametrize(("kind", "examples"), [("local", 60), ("memory", 60), ("s3", 12)])
def test_a_store_is_a_dictionary(kind: str, examples: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "s3":
        request.getfixturevalue("s3_environment")

    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(_operations)
    def check(operations: list[Any]) -> None:
        store = open_store(new_url(kind, tmp_path / uuid.uuid4().hex), QUICK)
        model: dict[str, bytes] = {}
        etags: dict[str, list[tuple[str, bytes]]] = {"a": [], "b/c": [], "b/d": []}  # every version there ever was
        for operation, name, value in operations:
            now = model.get(name)
            if operation == "absent":
                if now is None:
                    etags[name].append((store.put_if_absent(name, value), value))
                    model[name] = value
                else:
                    with pytest.raises(ObjectExistsError):
                        store.put_if_absent(name, value)
            elif operation == "put":
                etags[name].append((store.put(name, value), value))
                model[name] = value
            elif operation == "delete":
                store.delete(name)
                model.pop(name, None)
            elif operation == "read":
                if now is None:
                    with pytest.raises(MissingObjectError):
                        store.read(name)
                else:
                    assert store.read(name) == now
            elif operation == "swap":
                data, back = value
                if len(etags[name]) <= back:
                    continue
                etag, content = etags[name][-1 - back]
                try:
                    etags[name].append((store.compare_and_swap(name, data, etag), data))
                except ObjectChangedError:
                    assert back or now is None
                else:
                    assert now == content  # S3's etag is a digest: equal content is the same version
                    model[name] = data
            elif now is not None:
                start, length = value
                if start + length <= len(now) or not length:
                    assert store.read_range(name, start, length) == now[start : start + length]
                else:
                    with pytest.raises(DatasetError, match="ends at byte"):
                        store.read_range(name, start, length)
        assert {info.name: info.size_bytes for info in store.list()} == {name: len(model[name]) for name in model}
        assert [info.name for info in store.list("b")] == sorted(name for name in model if name[0] == "b")

    check()
