"""The table and the figure of a `hepbridge.deploy.bench` record, and the files of both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hepbridge.core.errors import OutputError
from hepbridge.core.files import atomic_path, check_output
from hepbridge.report.style import RC
from hepbridge.report.text import shorthand

__all__ = ["FILES", "check_files", "speed_figure", "speed_table", "write_speed"]

FILES = ("bench.png", "bench.pdf", "bench.json")

Record = Mapping[str, Any]
# as in `report.style`: the refiners blue, competitors in the colours of baselines
_REFINER = ("#0064b0", "o")
_PAPERS = (("#e69f00", "^"), ("#009e73", "v"))
_GENERATOR = ("#cc79a7", "D")
_SIMULATION = ("#888888", "s")
_NOISY = "#b2182b"


def speed_table(record: Record) -> Table:
    """How many times faster than the paper's network, and microseconds per shower, by batch size;
    below it, in a table of its own, what was published for another machine."""
    both = Table.grid(padding=(1, 0))
    both.add_row(_measured(record))
    both.add_row(_published(record["published"]))
    return both


def speed_figure(record: Record) -> Figure:
    """Microseconds per shower on a logarithmic axis, one panel per batch size, one row per stage.

    The bar is the range between the quartiles. Refiners are labelled with how many times faster
    they are than the paper's network in its fastest form at that batch size (dotted line).
    """
    stages, batches = record["stages"], record["protocol"]["batches"]
    names = [f"{_short(s)}\n{_evaluations(s['nfe'])}" for s in stages]
    # margins in inches, so that the words fit whatever the number of rows
    left = 0.3 + 0.078 * max(len(line) for name in names for line in name.split("\n"))
    width, height = max(7.4, left + 2.75 * len(batches) + 0.2), 1.4 + 0.52 * len(stages)
    with matplotlib.rc_context(cast(Any, {**RC, "ytick.minor.visible": False})):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(batches), sharex=True, sharey=True, squeeze=False)[0]
        figure.subplots_adjust(
            left=left / width,
            right=1 - 0.2 / width,
            bottom=0.58 / height,
            top=1 - 0.62 / height,
            wspace=0.1,
        )
        for panel, batch in zip(panels, batches, strict=True):
            _draw(panel, stages, batch, _range(record))
            panel.set_title(f"batch of {batch:,}", loc="left")
        panels[0].set_yticks(range(len(stages)), names)
        panels[0].set_ylim(len(stages) - 0.5, -0.5)
        label = "wall time per shower [µs]; ×: times faster than the paper's network (dotted line)"
        figure.supxlabel(label, fontsize=10, y=0.1 / height)
        figure.text(0.12 / width, 1 - 0.22 / height, _headline(record), fontsize=9.5)
        if record["noisy"]:
            figure.text(
                1 - 0.2 / width, 1 - 0.22 / height, "noisy: the core was busy with other work",
                fontsize=9.5, ha="right", color=_NOISY, weight="bold",
            )  # fmt: skip
    return figure


def check_files(folder: str | Path, *, overwrite: bool = False) -> Path:
    """The folder, if the files of a bench may be written there; call it before the slow part.

    It is made by `write_speed` if only its parent exists. Raises OutputError if it is a file, lies
    in no folder, or holds one of `FILES` already (unless ``overwrite``).
    """
    folder = Path(folder)
    if folder.is_dir():
        for name in FILES:
            check_output(folder / name, overwrite=overwrite)
    elif folder.exists():
        raise OutputError(f"{folder} is a file; give the name of a folder for the results")
    elif not folder.absolute().parent.is_dir():
        raise OutputError(
            f"cannot write {folder}: the folder {folder.absolute().parent} does not exist; "
            "make it first"
        )
    return folder


def write_speed(record: Record, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write ``bench.png``, ``bench.pdf`` and, last, ``bench.json``; returns the path of the latter.

    Raises OutputError as `check_files` says.
    """
    folder = check_files(folder, overwrite=overwrite)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}") from error
    figure = speed_figure(record)
    text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
    for name in FILES:
        with atomic_path(folder / name, overwrite=overwrite) as temporary:
            kind = name.rpartition(".")[2]
            if kind == "json":
                temporary.write_text(text + "\n", encoding="utf-8")
            else:
                extra: dict[str, Any] = (
                    {"metadata": {"CreationDate": None}} if kind == "pdf" else {}
                )
                figure.savefig(temporary, format=kind, **extra)
    return folder / "bench.json"


def _measured(record: Record) -> Table:
    papers = [s["name"] for s in record["stages"] if s["kind"] == "paper"]
    out = Table(
        title="Speed on one core: times faster than the paper's network",
        caption=_caption(record),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    out.add_column("stage", no_wrap=True)
    out.add_column("NFE", justify="right", min_width=3)
    for name in papers:
        out.add_column(f"× {name.removeprefix('paper, ')}", justify="right", no_wrap=True)
    out.add_column("µs/shower", justify="right", no_wrap=True)
    out.add_column("rows × runs", justify="right", no_wrap=True)
    for batch in record["protocol"]["batches"]:
        out.add_row(Text(f"batch of {batch:,}", style="bold"))
        for k, stage in enumerate(record["stages"]):
            timing = _at(stage, batch)
            ratios = [
                "–"
                if stage["kind"] in ("simulation", "generator")  # another task
                else "1"
                if name == stage["name"]
                else shorthand(r["median"], r["sigma"])
                for name in papers
                for r in [timing["times_faster"][name]]
            ]
            noisy = Text(" !", style="red") if timing["noisy"] else Text()
            out.add_row(
                _short(stage),
                str(stage["nfe"]),
                *ratios,
                _three(timing["us_per_shower"]["median"]),
                Text(f"{timing['rows']:,} × {timing['repeats']}") + noisy,
                end_section=k + 1 == len(record["stages"]),
            )
    return out


def _published(record: Record) -> Table:
    out = Table(
        title="Published elsewhere, another machine: not to be divided by the figures above",
        caption=f"{record['source']}; {record['machine']}.",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
        pad_edge=False,
    )
    out.add_column("simulator")
    out.add_column("µs/shower", justify="right")
    for name, (value, sigma) in record["ms_per_shower"].items():
        out.add_row(name, f"{1e3 * value:,.0f} ± {1e3 * sigma:,.0f}")
    return out


def _caption(record: Record) -> str:
    machine = record["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    load = machine["load_average"]
    notes: dict[str, list[str]] = {}
    for stage in record["stages"]:
        notes.setdefault(stage["note"], []).append(stage["name"])
    lines = [
        f"{machine['cpu']}, core {_or_unknown(machine['core'])} of {machine['cores']}, one thread; "
        f"load before the run {'unknown' if load is None else f'{load[0]:.2f}'}; {versions}.",
        "Ratios: median over paired repeats, in brackets its standard error in the last digits. "
        "NFE: network evaluations per shower. Fewer rows than the batch where a whole one is too "
        "slow.",
        *(f"{'; '.join(names)}: {note}." for note, names in notes.items()),
        *(f"{entry['name']}: {entry['reason']}." for entry in record["absent"]),
    ]
    if record["noisy"]:
        lines.append(
            "!: noisy, CPU time and wall time differ by more than 10 %, so other work had the core "
            "for part of the time; repeat when it is idle."
        )
    return "\n".join(lines)


def _headline(record: Record) -> str:
    machine = record["machine"]
    torch = machine["versions"].get("torch", "?")
    return f"{machine['cpu']}, one core, one thread, torch {torch}, {record['date'][:10]}"


def _draw(panel: Axes, stages: Sequence[Record], batch: int, limits: tuple[float, float]) -> None:
    """The panel of one batch size."""
    papers = iter(_PAPERS)
    middle = (limits[0] * limits[1]) ** 0.5
    fastest = min(
        (_at(s, batch)["us_per_shower"]["median"] for s in stages if s["kind"] == "paper"),
        default=None,
    )
    if fastest is not None:
        panel.axvline(fastest, color="#3d3d3d", linewidth=1, linestyle=(0, (1, 1.5)), zorder=1)
    for row, stage in enumerate(stages):
        timing = _at(stage, batch)
        us = timing["us_per_shower"]
        known = {"refiner": _REFINER, "generator": _GENERATOR, "simulation": _SIMULATION}
        colour, marker = known[stage["kind"]] if stage["kind"] in known else next(papers)
        panel.plot([us["q25"], us["q75"]], [row, row], color=colour, linewidth=2.5)
        panel.plot(us["median"], row, marker, color=colour, markersize=6.5)
        right = us["median"] < middle  # the side on which there is room
        panel.annotate(
            _beside(stage, timing),
            (us["q75"] if right else us["q25"], row),
            xytext=(8 if right else -8, 0),
            textcoords="offset points",
            va="center",
            ha="left" if right else "right",
            fontsize=8.5,
            color=colour if stage["kind"] == "refiner" else "#3d3d3d",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
    panel.set_xscale("log")
    panel.set_xlim(*limits)
    panel.xaxis.set_major_locator(LogLocator(10.0, numticks=12))
    panel.tick_params(axis="y", length=0)
    panel.grid(axis="x", color="#dddddd", linewidth=0.7)
    panel.set_axisbelow(True)


def _range(record: Record) -> tuple[float, float]:
    """Ends of the axis of all panels, at least two decades apart, so that labels have room."""
    us = [t["us_per_shower"] for s in record["stages"] for t in s["timings"]]
    low, high = min(u["q25"] for u in us) / 1.6, max(u["q75"] for u in us) * 1.6
    return (low, max(high, 100 * low))


def _beside(stage: Record, timing: Record) -> str:
    us = f"{_three(timing['us_per_shower']['median'])} µs"
    if stage["kind"] != "refiner" or not timing["times_faster"]:
        return us
    ratio = min(r["median"] for r in timing["times_faster"].values())
    return f"{float(f'{ratio:.2g}'):g}×, {us}"


def _three(value: float) -> str:
    """Three significant digits, thousands set apart."""
    return f"{float(f'{value:.3g}'):,.10g}"


def _short(stage: Record) -> str:
    """The name without the number of evaluations that stands beside it."""
    return str(stage["name"]).removesuffix(f", NFE {stage['nfe']}")


def _evaluations(nfe: int) -> str:
    if nfe == 0:
        return "no network"
    return f"{nfe} network evaluation{'' if nfe == 1 else 's'}"


def _at(stage: Record, batch: int) -> Record:
    found: Record = next(t for t in stage["timings"] if t["batch"] == batch)
    return found


def _or_unknown(core: int | None) -> str:
    return "(not pinned)" if core is None else str(core)
