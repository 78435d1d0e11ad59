"""PyTorch readers: random access, reading order, state, loader.

`from vrekit.readers import FrameDataset, make_loader`; torch is imported at the first use of a name.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrekit.readers.collate import collate_samples
    from vrekit.readers.dataset import FrameDataset
    from vrekit.readers.loader import FrameLoader, make_loader
    from vrekit.readers.webdataset_decoder import WebdatasetDecoder

__all__ = ["FrameDataset", "FrameLoader", "WebdatasetDecoder", "collate_samples", "make_loader"]

_MODULES = {
    "FrameDataset": "dataset",
    "FrameLoader": "loader",
    "WebdatasetDecoder": "webdataset_decoder",
    "collate_samples": "collate",
    "make_loader": "loader",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
