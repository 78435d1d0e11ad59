"""Contracts: what every representation, codec and storage must do, for the tests of those who write one.

Inherit from a contract in a test file; pytest runs its tests on your class. Nothing in vrekit imports this package.

    from vrekit.testing import CodecContract, RepresentationContract, StorageContract
"""

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrekit.testing.codecs import CodecContract
    from vrekit.testing.representations import RepresentationContract
    from vrekit.testing.storages import StorageContract

__all__ = ["CodecContract", "RepresentationContract", "StorageContract"]

_MODULES = {"CodecContract": "codecs", "RepresentationContract": "representations", "StorageContract": "storages"}

if find_spec("pytest"):  # so that a failing assertion shows its values
    import pytest

    pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES.values()))


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
