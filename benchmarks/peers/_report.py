"""What was measured, as medians, verdicts, tables and a plot."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks._shared import print_columns
from benchmarks.peers._peers import OURS, PEERS
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

PROTOCOLS = {"http": "HTTP", "grpc": "gRPC"}
MEASURES = {"requests_per_s": "requests/s", "p50_ms": "p50", "p99_ms": "p99"}
# Where Tritium is to be ahead of every peer: in flight, by the measure.
AHEAD = {"requests_per_s": (1, 16, 64), "p50_ms": (1, 16, 64), "p99_ms": (16, 64)}


@dataclass(frozen=True)
class Timing:
    """What the load generator measured of one server in one round; only good answers count as requests."""

    round: int
    protocol: str
    model: str
    in_flight: int
    peer: str
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True)
class Start:
    """One server in one round: seconds from its start until it had answered rightly; memory after all the load."""

    round: int
    peer: str
    ready_s: float
    pss_mb: float
    processes: int


@dataclass(frozen=True)
class Cell:
    """One server at one level: medians of the rounds, and the errors of all; without an answer, no requests/s."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    errors: int

    def __str__(self) -> str:
        """As in ``12 345 · 1.20 / 3.40``, with the errors if there are any."""
        errors = f" · {self.errors} errors" if self.errors else ""
        if not self.requests_per_s:
            return f"–{errors}"
        return f"{_thousands(self.requests_per_s)} · {_ms(self.p50_ms)} / {_ms(self.p99_ms)}{errors}"


@dataclass(frozen=True)
class Verdict:
    """Tritium beside the best of its peers: how many times that one's figure its own is."""

    protocol: str
    model: str
    in_flight: int
    measure: str
    best: str
    ratio: float
    met: bool

    def __str__(self) -> str:
        """For people."""
        where = f"{self.model}, {PROTOCOLS[self.protocol]}, {self.in_flight} in flight"
        return f"{where}: {MEASURES[self.measure]} {self.ratio:.2f} × that of {PEERS[self.best].title}"


# By protocol, model, in flight, server.
Table = Mapping[tuple[str, str, int, str], Cell]


def medians(timings: Sequence[Timing]) -> Table:
    """One cell for each server at each level."""
    groups: dict[tuple[str, str, int, str], list[Timing]] = {}
    for item in timings:
        groups.setdefault((item.protocol, item.model, item.in_flight, item.peer), []).append(item)
    return {
        key: Cell(
            **{measure: statistics.median(getattr(item, measure) for item in mine) for measure in MEASURES},
            errors=sum(item.errors for item in mine),
        )
        for key, mine in groups.items()
    }


def verdicts(table: Table, wanted: Mapping[str, Sequence[int]] = AHEAD) -> list[Verdict]:
    """Whether Tritium is ahead: without an error, and of the best peer in each measure.

    Where a peer gave errors, only its good answers count, and its latencies, which are those of the errors too, do not.
    """
    found = []
    for (protocol, model, level, name), mine in table.items():
        others = {
            other: cell
            for (*where, other), cell in table.items()
            if where == [protocol, model, level] and not PEERS[other].ours and cell.requests_per_s
        }
        if name != OURS or not others:
            continue
        for measure, levels in wanted.items():
            more = measure == "requests_per_s"
            figures = {other: getattr(cell, measure) for other, cell in others.items() if more or not cell.errors}
            if level in levels and figures:
                best = (max if more else min)(figures, key=lambda other: figures[other])
                ratio = getattr(mine, measure) / figures[best]
                met = not mine.errors and (ratio > 1 if more else ratio < 1)
                found.append(Verdict(protocol, model, level, measure, best, ratio, met))
    return found


def print_tables(document: Mapping[str, Any]) -> None:
    """All that the page has in its tables, on standard error."""
    for title, cells in tables(document):
        print(f"\n{title}", file=sys.stderr)
        print_columns(cells)


def tables(document: Mapping[str, Any]) -> Iterator[tuple[str, list[list[str]]]]:
    """Each with its title; the first line of cells are the heads."""
    table = medians([Timing(**item) for item in document["timings"]])
    levels = document["levels"]
    for protocol in PROTOCOLS:
        for model in document["models"]:
            cells = [["", *(f"{level} in flight" for level in levels)]]
            for name, peer in PEERS.items():
                mine = [table.get((protocol, model, level, name)) for level in levels]
                if any(mine):
                    cells.append([peer.title, *(str(cell or "–") for cell in mine)])
                elif name in document["failures"] and protocol in peer.calls:
                    cells.append([peer.title, *("did not run" for _ in levels)])
            if rates := document["ceilings"].get(protocol):
                loader = {"http": "wrk", "grpc": "h2load"}[protocol]
                shown = [_thousands(rates[str(level)]) if str(level) in rates else "–" for level in levels]
                cells.append([f"({loader} itself)", *shown])
            if len(cells) > 1:
                yield f"{PROTOCOLS[protocol]}, {model.upper()}: requests/s · p50 / p99 in ms", cells
    starts = [Start(**item) for item in document["starts"]]
    cells = [["", "ready after, s", "memory, MB", "processes"]]
    for name, peer in PEERS.items():
        if own := [start for start in starts if start.peer == name]:
            figures = {key: statistics.median(asdict(start)[key] for start in own) for key in ("ready_s", "pss_mb")}
            processes = f"{statistics.median(start.processes for start in own):.0f}"
            cells.append([peer.title, f"{figures['ready_s']:.1f}", _thousands(figures["pss_mb"]), processes])
    yield "Cold start and memory", cells
    if document["in_process"]:
        sizes = list(next(iter(document["in_process"].values())))
        cells = [["rows/s", *(f"batches of {size}" for size in sizes)]]
        for model, rates in document["in_process"].items():
            cells.append([model.upper(), *(_thousands(rates[size]) for size in sizes)])
        yield "ONNX Runtime in process, no server", cells


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Write requests a second and p99 over HTTP as a PNG."""
    table = medians([Timing(**item) for item in document["timings"]])
    measures = {"requests_per_s": "requests/s", "p50_ms": "p50, ms", "p99_ms": "p99, ms"}
    names = [name for name in PEERS if any(key[0] == "http" and key[3] == name for key in table)]
    # A figure of its own, not pyplot's: no display is asked for and no state is shared.
    figure = Figure(figsize=(13, 4 * len(document["models"])), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(document["models"]), len(measures), squeeze=False)
    for axes_of_model, model in zip(rows, document["models"], strict=True):
        for axes, (measure, label) in zip(axes_of_model, measures.items(), strict=True):
            for name in names:
                found = {level: table.get(("http", model, level, name)) for level in document["levels"]}
                points = [(level, cell) for level, cell in found.items() if cell]
                peer = PEERS[name]
                # One colour for each package, and the second setting of the same one dotted.
                alike = [other for other in names if PEERS[other].packages == peer.packages]
                colour = list(dict.fromkeys(PEERS[other].packages for other in names)).index(peer.packages)
                axes.plot(
                    [level for level, _ in points],
                    [getattr(cell, measure) for _, cell in points],
                    "o-" if name == alike[0] else "o:",
                    color=f"C{colour}",
                    label=peer.title,
                    linewidth=2.5 if peer.ours else 1.2,
                    markersize=4,
                )
            axes.set(xscale="log", yscale="log", xlabel="in flight", ylabel=label, title=f"{model.upper()}, HTTP")
            axes.set_xticks(document["levels"], [str(level) for level in document["levels"]], minor=False)
            axes.minorticks_off()
            axes.grid(alpha=0.3)
    figure.legend(*rows[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=100, metadata={"Software": None})


def _thousands(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else _thousands(value)
