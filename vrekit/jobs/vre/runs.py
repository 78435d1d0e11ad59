"""VRE's runs as runs of a dataset."""

import re
from pathlib import Path

from vrekit.catalog.runs import RUNS_FOLDER, RepresentationTotals, RunRecord, write_run
from vrekit.core.files import storage_errors, write_atomic
from vrekit.jobs.vre.folder import VreRun
from vrekit.jobs.vre.payloads import safe_name


def _number(value: object) -> float | None:
    """Return a value of VRE's if it is a number that can be."""
    return value if isinstance(value, (int, float)) and 0 <= value < 2**50 else None


def copy_run(output: Path, run: VreRun, video_id: str) -> None:
    """Write VRE's run as one of the dataset's, with its log."""
    total = run.record.get("total")
    stats = run.record.get("run_stats")
    seconds = total.get("duration") if isinstance(total, dict) else None
    match = re.search(r"(\d{4}-\d\d-\d\dT[\d:.]+)$", run.path.stem)
    record = RunRecord(
        run_id=run.run_id,
        video_id=video_id,
        request={"convert": "vre", "runtime_args": dict(run.arguments)},
        command=[],
        started_at=match[1] if match else "",
        status="interrupted" if _number(seconds) is None else "done",
        elapsed_seconds=_number(seconds),
        totals={
            safe_name(name): RepresentationTotals(
                computed=int(_number(one.get("n_computed")) or 0),
                failed=int(_number(one.get("n_failed")) or 0),
                compute_seconds=(_number(one.get("average_duration")) or 0.0) * (_number(one.get("n_computed")) or 0),
            )
            for name, one in (stats.items() if isinstance(stats, dict) else ())
            if isinstance(one, dict)
        },
    )
    write_run(output, record)
    if run.log is not None:
        with storage_errors(output):
            write_atomic(output / RUNS_FOLDER / f"{run.run_id}.log", run.log.read_bytes())
