"""vrekit: raw video in, sharded multi-modal training data out.

    report = vrekit.export("car.mp4", "out", "quickstart")
    dataset = vrekit.open("out")
    dataset["car/12"]["rgb"]

Importing this package is cheap: torch, torchcodec, cv2 and lance load only when something needs them. `docs/python.md`
shows what there is.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrekit.api.dataset import Dataset
    from vrekit.api.dataset import open_dataset as open
    from vrekit.api.export import ExportSummary, export
    from vrekit.api.frame import Frame
    from vrekit.core.errors import VrekitError
    from vrekit.engine.export import resume
    from vrekit.jobs.merge.run import merge
    from vrekit.jobs.repair_dataset import repair_dataset as repair
    from vrekit.jobs.transcode.run import transcode
    from vrekit.jobs.validate import validate
    from vrekit.readers.dataset import FrameDataset
    from vrekit.readers.loader import make_loader
    from vrekit.readers.webdataset_decoder import decode, webdataset_decoder

__version__ = "0.1.0"

__all__ = [
    "Dataset",
    "ExportSummary",
    "Frame",
    "FrameDataset",
    "VrekitError",
    "__version__",
    "decode",
    "export",
    "make_loader",
    "merge",
    "open",
    "repair",
    "resume",
    "transcode",
    "validate",
    "webdataset_decoder",
]

_PLACES = {
    "Dataset": "api.dataset:Dataset",
    "ExportSummary": "api.export:ExportSummary",
    "Frame": "api.frame:Frame",
    "FrameDataset": "readers.dataset:FrameDataset",
    "VrekitError": "core.errors:VrekitError",
    "decode": "readers.webdataset_decoder:decode",
    "export": "api.export:export",
    "make_loader": "readers.loader:make_loader",
    "merge": "jobs.merge.run:merge",
    "open": "api.dataset:open_dataset",
    "repair": "jobs.repair_dataset:repair_dataset",
    "resume": "engine.export:resume",
    "transcode": "jobs.transcode.run:transcode",
    "validate": "jobs.validate:validate",
    "webdataset_decoder": "readers.webdataset_decoder:webdataset_decoder",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name].split(":")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
