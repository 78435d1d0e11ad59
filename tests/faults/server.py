"""Runs vrekit commands in forks of a process that has everything imported, with the shim armed in the child.

One JSON object a line: {"args", "output", "arm"?: [kind, k, folder]} → {"status": of waitpid, "calls": counted}; or
{"check": folder} → {"state": …}. The process itself never calls Lance, whose threads do not survive a fork.
"""

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.storages import open_payloads, read_samples
from vrekit.catalog.storage import open_storage


def serve(shim: str) -> None:
    """Answer requests until stdin ends."""
    _import_everything()
    library = ctypes.CDLL(shim)
    library.shim_count.restype = ctypes.c_long
    for line in sys.stdin:
        request = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            code = 70
            try:
                code = _check(request, writing) if "check" in request else _run(request, library, writing)
            finally:
                os._exit(code)
        os.close(writing)
        with open(reading, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        answer = {"status": status, "said": json.loads(said) if said else None}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _import_everything() -> None:
    import lance.fragment
    import lance.optimize  # noqa: F401


def _run(request: dict[str, Any], library: ctypes.CDLL, writing: int) -> int:
    from vrekit.cli.app import app

    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if "arm" in request:
        kind, k, folder = request["arm"]
        library.shim_arm(ctypes.c_int(kind), ctypes.c_long(k), folder.encode())
    code = 0
    try:
        app(request["args"], prog_name="vrekit")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 71
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(writing, json.dumps(library.shim_count()).encode())
    return code


def _check(request: dict[str, Any], writing: int) -> int:
    os.write(writing, json.dumps(state_of(Path(request["check"]))).encode())
    return 0


OWN = ("run_id", "compute_seconds", "encode_seconds", "shard", "byte_offset")  # columns that differ from run to run


def state_of(folder: Path) -> dict[str, Any]:
    """Return what two equal datasets have in common: rows, payloads, files; and what `validate` finds."""
    import numpy as np

    from vrekit.catalog.manifest import read_manifest
    from vrekit.core.checksum import crc32
    from vrekit.jobs.validate import validate
    from vrekit.readers.index import read_index

    manifest = read_manifest(folder)
    rows = sorted(
        [
            [
                row["video_id"],
                row["frame_index"],
                row["representation"],
                *(row[name] for name in row if name not in OWN),
            ]
            for row in read_samples(folder).to_pylist()
        ]
    )
    index = read_index(open_storage(folder, manifest), manifest.stored_names)
    reader = open_payloads(folder, manifest, index)
    payloads = {
        name: [crc32(data) if data is not None else None for data in found]
        for name, found in reader.read(np.arange(len(index)), manifest.stored_names).items()
    }
    report = validate(folder)
    return {
        "rows": json.loads(json.dumps(rows)),
        "payloads": payloads,
        "problems": [str(problem) for problem in [*report.problems, *report.warnings]],
        "files": sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
        "tars": {path.name: crc32(path.read_bytes()) for path in sorted(folder.glob("shards/*/*.tar"))},
        "manifest": json.loads((folder / "dataset.json").read_bytes()),
        "card": (folder / "README.md").read_text(),
    }


if __name__ == "__main__":
    serve(sys.argv[1])
