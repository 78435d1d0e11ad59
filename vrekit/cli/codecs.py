"""`vrekit codecs`: which codec is taken for what, and measuring them on one's own data."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrekit.cli.output import command, human_bytes, note, print_json, table

if TYPE_CHECKING:
    from vrekit.jobs.bench_codecs import CodecBench

app = typer.Typer(invoke_without_command=True)


@app.callback()
@command
def codecs(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show which codec each profile takes for each kind of data, and how much that loses.

    `*` marks what is taken when nobody asks for lossless or lossy. `vrekit list codecs` lists all codecs.

    Example:
        vrekit codecs
    """
    if context.invoked_subcommand is not None:
        return
    rows = _profile_rows()
    if as_json:
        print_json(rows)
        return
    profiles = ("training", "balanced", "archive", "plain")
    shown = []
    for row in rows:
        found = [row.get(name, {"codec": "–", "default": False}) for name in profiles]
        cells = [f"{one['codec']}{' *' if one['default'] else ''}" for one in found]
        shown.append([row["data"], "lossy" if row["lossy"] else "lossless", *cells, row["largest_error"]])
    table(["data", "loss", *profiles, "largest error"], shown)


def _profile_rows() -> list[dict[str, Any]]:
    from vrekit.codecs.auto import option_text
    from vrekit.codecs.presets import error_of
    from vrekit.codecs.profiles import PROFILES, TABLE

    rows = []
    for data, choices in TABLE.items():
        for lossy in (False, True):
            options = {name: choices[name].lossy if lossy else choices[name].lossless for name in reversed(PROFILES)}
            found = {name: option for name, option in options.items() if option is not None}
            if not found:
                continue
            errors = dict.fromkeys(error_of(option) for option in found.values())
            # an option says less of its error than the codec by itself: `unbounded`, `unbounded; 46 dB PSNR`
            errors = {one: None for one in errors if not any(other.startswith(f"{one}; ") for other in errors)}
            row: dict[str, Any] = {"data": data, "lossy": lossy, "largest_error": "; ".join(errors)}
            for name, option in found.items():
                has_lossy = choices[name].lossy is not None
                is_default = lossy == (has_lossy and choices[name].lossy_by_default)
                row[name] = {"codec": option_text(option), "default": is_default}
            rows.append(row)
    return rows


@app.command()
@command
def bench(
    video: Annotated[str, typer.Option("--video", help="Video file, folder or array file, e.g. clip.mp4.")],
    representation: Annotated[
        str, typer.Option("--representation", "-r", help="Name of the representation in the config, e.g. flow.")
    ],
    config: Annotated[
        str, typer.Option("--config", "-c", help="Config file, or the name of a shipped one (`vrekit list configs`).")
    ] = "quickstart",
    frames: Annotated[int, typer.Option(help="Number of frames, evenly spread over the video.", min=1)] = 8,
    rounds: Annotated[int, typer.Option(help="Runs of each codec and frame; the best one counts.", min=1)] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Measure the codecs that suit a representation on frames of your own.

    Bytes are per frame; speeds are MB of the raw arrays per CPU second of one thread, decoding into memory that is
    there already; npz is np.savez_compressed.

    Example:
        vrekit codecs bench --video clip.mp4 --representation flow
    """
    from pathlib import Path

    from vrekit.config.loader import load_config
    from vrekit.jobs.bench_codecs import bench_codecs

    loaded = load_config(config)
    found = bench_codecs(
        video,
        loaded.representations,
        representation,
        frames=frames,
        rounds=rounds,
        folders=(*((loaded.folder,) if loaded.folder else ()), Path.cwd()),
    )
    if as_json:
        print_json(found.to_json())
        return
    _print_bench(found)


def _print_bench(found: "CodecBench") -> None:
    count, npz = len(found.frames), found.npz
    rows = [
        [
            one.label,
            f"{one.stored_bytes // one.frames:,}",
            f"{npz.stored_bytes / one.stored_bytes:.2f}" if one.stored_bytes else "–",
            f"{one.encode_mbps:,.0f}",
            f"{one.decode_mbps:,.0f}",
            one.fidelity,
            ", ".join(found.default_of.get(one.label, ())),
        ]
        for one in (npz, *found.results)
    ]
    raw = human_bytes(npz.raw_bytes / max(1, npz.frames))
    shape = "x".join("?" if length is None else str(length) for length in found.spec.shape)
    frames = f"{count} frame{'s' * (count > 1)}"
    title = f"{found.representation} ({found.data}): {found.spec.dtype} {shape}, {raw} a frame, {frames}"
    columns = ["codec", "bytes", "× smaller than npz", "encode MB/s", "decode MB/s", "fidelity", "default of"]
    table(columns, rows, title=title)
    if found.failed_frames:
        listing = ", ".join(map(str, found.failed_frames))
        many = len(found.failed_frames) > 1
        note(f"{found.representation} failed on frame{'s' * many} {listing}, which {'are' if many else 'is'} left out")
    for label, reason in found.refused.items():
        note(f"{label} does not take these frames: {reason}")
