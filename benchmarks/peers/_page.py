"""docs/benchmarks.md: written from what was measured, but for the notes, which stay as people wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers._peers import PEERS
from benchmarks.peers._report import AHEAD, MEASURES, Timing, Verdict, draw, medians, tables, verdicts

BEGIN, END = "<!-- notes: kept when the page is written anew -->", "<!-- end of notes -->"
_PAGE = """\
# Benchmarks

Tritium beside what else serves an ONNX model over the network: the same files, the same machine, the same load. This
page is written by the benchmark itself, but for the notes on what it shows.

{machine}

One row a request, asked again as soon as it is answered, so many at once as stated. The load comes from wrk over HTTP
and from h2load over gRPC, each on one thread with a connection for each request in flight; it shares the cores with
the server. Only one server is up at a time: started, asked until it answers both models rightly, warmed up, loaded at
every level from the lowest, checked again, weighed, ended. A round is all of them, and each round starts with another.
Medians of {rounds} rounds of {duration_s} s at each level. wrk's percentiles allow for requests that a stalled server
kept from being sent, h2load's do not. Memory is that of all of a server's processes after the load, pages that several
share count once; the cold start runs from the command to the first right answers, with files in the page cache.

The CNN has the architecture of `digits_cnn` (28×28 pixels, 3 136 bytes a row), the MLP 100-64-32-10 (400 bytes); ten
floats come back. ONNX Runtime {onnxruntime} runs them with one thread everywhere. The answers are compared with ONNX
Runtime's own before and after the load.

![Requests a second, p50 and p99 over HTTP](benchmarks.png)

{tables}

The load generators' own rates are those of requests of the CNN against HAProxy, on one thread, answering by itself.
ONNX Runtime in process has a process with one thread for each core, and no load generator beside it.

## Where Tritium is ahead

{verdicts}

{notes}

## How each is served

{tuned}

{failures}## Again

```console
$ apt-get install wrk nghttp2-client
$ make bench                                   # the table, on standard error; the first run makes the environments
$ make bench ARGS="--write docs/benchmarks.md" # this page and its plot
$ make bench ARGS="--only native fastapi_1 --levels 1 16 --rounds 1"
```

It ends with exit code 1 if Tritium is not ahead where it is to be.
"""


def write(document: Mapping[str, Any], found: Sequence[Verdict], path: Path) -> None:
    """Write the page, and its plot beside it."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    notes = old.partition(BEGIN)[2].partition(END)[0] if BEGIN in old else "\n"
    machine = document["machine"]
    path.parent.mkdir(parents=True, exist_ok=True)
    page = _PAGE.format(
        machine=f"{machine['cpu']}, {machine['cores']} cores; Python {machine['python']}; {document['date']}.",
        rounds=document["rounds"],
        duration_s=document["duration_s"],
        onnxruntime=machine["onnxruntime"],
        tables="\n\n".join(f"## {title}\n\n{_table(cells)}" for title, cells in tables(document)),
        verdicts=_verdicts(found, document),
        notes=f"{BEGIN}{notes}{END}",
        tuned=_table([["", "version", "how"], *_tuned(document)]),
        failures=_failures(document["failures"]),
    )
    path.write_text(page, encoding="utf-8")
    draw(document, path.with_suffix(".png"))


def _verdicts(found: Sequence[Verdict], document: Mapping[str, Any]) -> str:
    table = medians([Timing(**item) for item in document["timings"]])
    wanted = "; ".join(f"{MEASURES[key]} at {', '.join(map(str, levels))}" for key, levels in AHEAD.items())
    missed = [verdict for verdict in found if not verdict.met]
    ahead = f"{len(found) - len(missed)} of {len(found)}"
    lines = [f"The native backend is to be ahead of every peer by {wanted} in flight. It is in {ahead}."]
    if missed:
        lines += ["It is not here:", "\n".join(f"- {verdict}" for verdict in missed)]
    everywhere = dict.fromkeys(MEASURES, document["levels"])
    others = [verdict for verdict in verdicts(table, everywhere) if not verdict.met and verdict not in missed]
    if others:
        lines += ["Elsewhere a peer is ahead of it:", "\n".join(f"- {verdict}" for verdict in others)]
    return "\n\n".join(lines)


def _tuned(document: Mapping[str, Any]) -> list[list[str]]:
    measured = {item["peer"] for item in document["timings"]} | set(document["failures"])
    return [
        [peer.title, document["versions"].get(name, ""), peer.tuned] for name, peer in PEERS.items() if name in measured
    ]


def _failures(failures: Mapping[str, str]) -> str:
    if not failures:
        return ""
    lines = [f"- {PEERS[name].title}: {reason.splitlines()[0]}" for name, reason in failures.items()]
    return "\n".join(["## What did not run", "", *lines, "", ""])


def _table(cells: Sequence[Sequence[str]]) -> str:
    heads, *lines = (f"| {' | '.join(line)} |" for line in cells)
    return "\n".join([heads, f"|{'---|' * len(cells[0])}", *lines])
