"""The report for people: one file, every plot drawn, and nothing fetched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tritium.client import InputError, MissingExtraError
from tritium.loadtest import SUITES, LoadReport, Stage, write_report

from .made import report

MOST_BYTES = 3_000_000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Says of each plot how many of its pixels are painted, when all are drawn and what was folded is opened.
PROBE = """<script>
const canvases = (node) => [...node.querySelectorAll("*")].flatMap((each) => [
  ...(each.tagName === "CANVAS" ? [each] : []), ...(each.shadowRoot ? canvases(each.shadowRoot) : [])]);
const painted = (canvas) => canvas.width && canvas.height ?
  canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.filter((_, at) => at % 4 === 3)
    .reduce((sum, alpha) => sum + (alpha > 0), 0) : 0;
const plots = [...document.querySelectorAll(".plot")];
function unfold() {
  if (!document.documentElement.dataset.drawn) return setTimeout(unfold, 50);
  const folded = plots.map((plot) => !plot.checkVisibility({ contentVisibilityAuto: true }));
  for (const details of document.querySelectorAll("details")) details.open = true;
  setTimeout(() => look(folded), 500);
}
function look(folded) {
  const found = plots.map((plot, place) => ({
    title: plot.getAttribute("aria-label"), folded: folded[place], right: plot.getBoundingClientRect().right,
    painted: Math.max(0, ...canvases(plot).map(painted)) }));
  document.documentElement.dataset.probe = JSON.stringify({
    plots: found, page: document.documentElement.scrollWidth, window: innerWidth });
}
setTimeout(unfold, 300);
</script>"""


class Page(HTMLParser):
    """Words that are shown, headings, and all that a browser would fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words = ""
        self.headings: list[str] = []
        self.fetched: list[str] = []
        self._in = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        self.headings += [""] if tag in ("h2", "h3") else []
        self.fetched += [f"{tag} {key}" for key, _ in attrs if key in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        if self._in not in ("script", "style"):
            self.words += data
        if self._in in ("h2", "h3"):
            self.headings[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


def written(made: LoadReport, folder: Path) -> tuple[Path, Page]:
    path = folder / "report.html"
    write_report(made, path)
    assert path.stat().st_size < MOST_BYTES
    assert [item.name for item in folder.iterdir()] == ["report.html"]
    return path, Page(path.read_text(encoding="utf-8"))


def in_chromium(path: Path, width: int = 1280) -> dict[str, Any]:
    """What the page's plots look like in a browser without a network."""
    assert CHROMIUM is not None
    probed = path.with_name("probed.html")
    probed.write_text(path.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},2000"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={path.parent / 'profile'}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", probed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "setting log level" not in line]
    assert not said, said
    probe = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert probe, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(probe[1].replace("&quot;", '"'))
    return found


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@needs_chromium
@pytest.mark.parametrize(("suite", "width"), [("ramp", 1280), ("batching", 500), ("chaos", 1280)])
def test_every_plot_is_drawn_in_a_browser_without_a_network(suite: str, width: int, tmp_path: Path) -> None:
    path, page = written(report(suite, noise=0.1), tmp_path)
    found = in_chromium(path, width)
    titles = [plot["title"] for plot in found["plots"]]
    assert len(titles) >= 7
    assert set(titles) <= set(page.headings)
    assert [plot["title"] for plot in found["plots"] if plot["painted"] < 500] == []
    # Nothing sticks out of the page to the right.
    assert found["page"] <= found["window"]
    assert all(plot["right"] <= found["window"] for plot in found["plots"])


@needs_chromium
@pytest.mark.parametrize("changes", [{"right": False}, {"remote": True}, {"right": False, "remote": True}], ids=str)
@pytest.mark.parametrize("suite", ["ramp", "batching"])
def test_what_could_not_be_measured_leaves_no_broken_plot(suite: str, changes: dict[str, bool], tmp_path: Path) -> None:
    found = in_chromium(written(report(suite, **changes), tmp_path)[0])
    assert found["plots"]
    assert [plot["title"] for plot in found["plots"] if plot["painted"] < 500] == []


@needs_chromium
def test_the_runs_after_the_first_are_folded_and_drawn_when_they_are_opened(tmp_path: Path) -> None:
    plots = in_chromium(written(report("soak", repeats=2), tmp_path)[0])["plots"]
    folded = [plot["folded"] for plot in plots if plot["title"] == "Latency over time"]
    assert folded == [False, True]
    assert [plot["title"] for plot in plots if plot["painted"] < 500] == []


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_has_a_report_that_fetches_nothing(suite: str, repeats: int, tmp_path: Path) -> None:
    _, page = written(report(suite, repeats=repeats), tmp_path)
    assert page.fetched == []
    assert {"Objectives", "Latency over time", "Each model", "How it was run"} <= set(page.headings)
    assert ("Latency against load" in page.headings) is (len(report(suite).levels) > 1 and suite != "batching")
    assert ("Throughput of the variants" in page.headings) is (suite == "batching")


@pytest.mark.parametrize(("ok", "words"), [(True, "✓ Good enough"), (False, "✗ NOT good enough")])
def test_the_verdict_is_in_words_and_not_by_colour_alone(ok: bool, words: str, tmp_path: Path) -> None:
    _, page = written(report("smoke", ok=ok), tmp_path)
    assert words in page.words
    assert ("✗ NOT met" in page.words) is not ok
    assert ("1 of 2 objectives not met." in page.words) is not ok


def test_a_run_that_nobody_answered_says_so(tmp_path: Path) -> None:
    made = report("smoke", right=False, remote=True)
    nothing = replace(made.runs[0].everywhere, requests=0, failed=0)
    _, page = written(replace(made, runs=(replace(made.runs[0], everywhere=nothing, timeline=()),)), tmp_path)
    assert "There was a run in which no request was answered." in page.words
    assert "Objectives" in page.headings


def test_what_a_server_says_is_text_and_no_markup(tmp_path: Path) -> None:
    path, page = written(report("smoke", right=False), tmp_path)
    assert "ServerBusyError: <b>full</b> & closed" in page.words
    assert "<b>full" not in path.read_text(encoding="utf-8")


def test_the_events_of_chaos_are_listed_with_their_time(tmp_path: Path) -> None:
    _, page = written(report("chaos"), tmp_path)
    assert "4.5 s: killed a backend process" in page.words


def test_the_figures_of_several_runs_are_said_to_be_medians(tmp_path: Path) -> None:
    _, page = written(report("ramp", repeats=3), tmp_path)
    assert "3 runs of 40 s each; figures are their medians" in page.words
    assert [heading for heading in page.headings if heading.startswith("Over time")] == [
        f"Over time, run {number}" for number in (1, 2, 3)
    ]


def test_a_run_of_a_day_makes_no_larger_file(tmp_path: Path) -> None:
    day = [Stage(name="all", duration_s=86_400.0, users=4)]
    _, page = written(report("soak", noise=0.3, stages=day), tmp_path)
    assert "Each point is 24 seconds." in page.words


def test_a_file_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing/report\.html cannot be written: No such file"):
        write_report(report("smoke"), tmp_path / "missing" / "report.html")


@pytest.mark.parametrize("package", ["bokeh", "jinja2"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'.*tritium\[loadtest\]"):
        write_report(report("smoke"), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
