"""vrekit: raw video in, sharded multi-modal training data out.

Importing this package is cheap: torch, torchcodec, cv2 and lance load only when something needs them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrekit.readers.webdataset_decoder import decode, webdataset_decoder

__version__ = "0.1.0"

__all__ = ["__version__", "decode", "webdataset_decoder"]

_MODULES = {"decode": "vrekit.readers.webdataset_decoder", "webdataset_decoder": "vrekit.readers.webdataset_decoder"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
