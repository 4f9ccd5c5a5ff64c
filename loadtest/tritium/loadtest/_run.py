"""Running a suite: a server, Locust, somebody who looks at the server meanwhile, and what it all came to."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from tritium.client import Client, InputError
from tritium.repository import Repository

from ._errors import LoadError, LoadInterrupted
from ._locust import Job, free_port, run_locust, run_worker
from ._objectives import MEMORY, parse_objectives
from ._observer import Observer
from ._plan import Plan
from ._result import LoadReport, LoadResult, result_of
from ._suites import SUITES, Suite, Wish
from ._targets import Target, embedded, existing, in_chaos, with_variants
from ._traffic import GoldenTraffic

PROTOCOLS = ("http", "grpc")
_SCHEMES = ("http", "https", "grpc", "grpcs")
# How long what a server can take is measured for, before it is asked for more.
_CAPACITY_S = 5.0
_NEVER_REJECTED = (
    "nothing was rejected: the queue has no bound, or was not full yet, so that what was too much waited; "
    "docs/exporting.md says how to bound it"
)


_NEVER_WRONG = "wrong=0"
_MEMORY_UNSEEN = "the server is not on this machine, so its memory was not looked at, and nothing is said of it"


def _silent(_: str) -> None:
    """Tell nobody."""


def run_suite(
    suite: str,
    *,
    repository: str | Path | Repository,
    url: str | None = None,
    protocol: str = "http",
    models: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    users: int | None = None,
    duration_s: float | None = None,
    rate: float | None = None,
    objectives: str | None = None,
    repeats: int = 1,
    workers: int = 0,
    remote_workers: int = 0,
    bind: str = "127.0.0.1:0",
    timeout_s: float = 30.0,
    progress: Callable[[str], object] = _silent,
) -> LoadReport:
    """Load a server, check every answer, and say whether it was good enough.

    Args:
        suite: one of SUITES.
        repository: the model repository whose versions the server runs; the golden cases are read from it.
        url: the server; the scheme chooses HTTP or gRPC. By default an embedded server is started for the run, over
            that repository, and stopped after it.
        protocol: "http" or "grpc", for a server of the run's own.
        models: whose golden cases to send; all by default.
        weights: how often each model comes beside the others; without any they come in turn.
        users: requests under way at once (closed loop: each user waits for its answer); the most of them in suites
            with several levels. By default as the suite says.
        duration_s: seconds to send for, beside the start. By default as the suite says.
        rate: requests a second, instead of users who wait (open loop): they come at random (Poisson), and a latency
            counts from when a request was due, so that a slow server cannot slow its own test down.
        objectives: what must be reached, as in ``p99<25ms, errors<0.1%, rps>500, wrong=0``; where none is about errors
            or wrong answers, also ``wrong=0``. By default what the suite is for: mostly ``errors=0, wrong=0``.
        repeats: how often all of it is done; objectives are judged by medians.
        workers: processes that send, conducted by one more; 0 for a single process.
        remote_workers: how many more are waited for, which :func:`join_run` starts, perhaps on other machines.
        bind: the address and the port at which they find this one; port 0 for any free one.
        timeout_s: seconds that a request may take.
        progress: is told what is being done.

    Returns:
        Every run, and a verdict for each objective.

    Raises:
        InputError: an argument cannot be used.
        TritiumError: the server cannot be reached or started, or does not serve what the repository holds.
        LoadError: Locust did not run to its end.
        LoadInterrupted: Ctrl-C ended a run; it has the report of what was measured until then.
    """
    chosen = _suite(suite)
    source = repository if isinstance(repository, Repository) else Repository(repository)
    goals = parse_objectives(chosen.objectives if objectives is None else objectives)
    if not any(goal.metric in ("wrong", "errors") for goal in goals):
        # However fast they come, wrong answers are no good.
        goals += parse_objectives(_NEVER_WRONG)
    wish = Wish(users=users, duration_s=duration_s, rate=rate, models=tuple(models))
    _check(chosen, wish, url, protocol, repeats, workers, remote_workers, timeout_s)
    if not source.models():
        raise InputError(f"There are no models in {source.path}")
    for model in models:
        source.config(model)  # says what there is instead
    plan = Plan(chosen.stages(wish))
    host, port = split_address(bind)
    port = port or free_port(host)
    with _target(chosen, source, url, protocol, wish.models) as target:
        job = Job(
            suite=suite,
            url=target.url,
            repository=target.repository.path,
            plan=plan,
            models=tuple(target.repository.models()) if chosen.name == "batching" else wish.models,
            weights=weights or {},
            timeout_s=timeout_s,
            retries=chosen.retries,
            workers=workers,
            remote=remote_workers,
            bind=host,
            port=port,
        )
        if remote_workers:
            progress(
                f"waiting for {remote_workers} more workers; on their machines: tritium load {suite} --join "
                f"{host}:{port} --protocol {target.url[:4]} --repository model_repository"
            )
        # What cannot be sent is said here, and not by a traceback of Locust's.
        with Client(target.url, timeout_s=timeout_s) as client:
            traffic = GoldenTraffic(target.repository, client, job.models, job.weights)
        remarks = []
        if target.pid is None and objectives is None and any(goal.metric == MEMORY for goal in goals):
            goals = [goal for goal in goals if goal.metric != MEMORY]
            remarks.append(_MEMORY_UNSEEN)
        for goal in goals:
            goal.check(traffic.models, memory=target.pid is not None)
        runs: list[LoadResult] = []
        interrupted = False
        while len(runs) < repeats and not interrupted:
            which = f"run {len(runs) + 1} of {repeats}"
            try:
                run = _run(chosen, wish, replace(job, seed=len(runs)), target, progress, which)
            except KeyboardInterrupt:
                if not runs:
                    raise
                interrupted = True
            else:
                runs.append(replace(run, remarks=(*run.remarks, *remarks)))
                interrupted = run.interrupted
    verdicts = tuple(goal.judge([run.evidence for run in runs]) for goal in goals)
    report = LoadReport(runs=tuple(runs), verdicts=verdicts, interrupted=interrupted)
    if interrupted:
        raise LoadInterrupted(report)
    return report


def join_run(suite: str, address: str, *, repository: str | Path | Repository, protocol: str = "http") -> int:
    """Be a worker of a run that somebody else conducts, until it is over.

    Args:
        suite: the suite that is run there.
        address: where its conductor is found, as in ``10.0.0.5:5557``.
        repository: a model repository with the golden cases of what the server runs.
        protocol: "http" or "grpc", as there.

    Returns:
        What Locust exits with.

    Raises:
        InputError: an argument cannot be used.
    """
    chosen = _suite(suite)
    if protocol not in PROTOCOLS:
        raise InputError(f"The 'protocol' parameter must be 'http' or 'grpc', got {protocol!r} instead")
    source = repository if isinstance(repository, Repository) else Repository(repository)
    host, port = split_address(address)
    return run_worker(chosen.name, protocol, host, port, source.path)


def split_address(address: str) -> tuple[str, int]:
    """An address and a port, as in ``0.0.0.0:5557``.

    Raises:
        InputError: it is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"An address is written as in '10.0.0.5:5557', got {address!r} instead")
    return host, int(port)


def _run(
    suite: Suite, wish: Wish, job: Job, target: Target, progress: Callable[[str], object], which: str
) -> LoadResult:
    if suite.name == "overload" and wish.rate is None:
        progress(f"{suite.name}, {which}: what can the server take?")
        stages = suite.stages(replace(wish, duration_s=_CAPACITY_S))
        asked = run_locust(replace(job, plan=Plan(stages)))
        if asked.cut_s is not None:
            raise KeyboardInterrupt
        found = result_of(suite.name, job.url, Plan(stages), asked, ())
        if not found.judged.right:
            raise LoadError(f"{job.url} gave no right answer in {_CAPACITY_S:g} s, so there is nothing to overload")
        job = replace(job, plan=Plan(suite.stages(replace(wish, rate=found.judged.requests_per_s))))
    progress(f"{suite.name}, {which}: {', '.join(dict.fromkeys(stage.load for stage in job.plan.stages))}")
    observer = Observer(target.client, target.pid)
    with observer.watching():
        requests = run_locust(job)
    found = result_of(
        suite.name,
        job.url,
        job.plan,
        requests,
        observer.looks,
        events=[(at_s - requests.began_s, text) for at_s, text in target.events if at_s >= requests.began_s],
        find_knee=suite.name == "ramp",
    )
    if suite.name == "overload" and not found.everywhere.rejected:
        found = replace(found, remarks=(*found.remarks, _NEVER_REJECTED))
    return found


def _target(
    suite: Suite, source: Repository, url: str | None, protocol: str, models: Sequence[str]
) -> AbstractContextManager[Target]:
    if suite.name == "batching":
        return with_variants(source, protocol, models)
    if suite.name == "chaos":
        return in_chaos(source, protocol, models)
    return existing(url, source) if url is not None else embedded(source, protocol)


def _suite(name: str) -> Suite:
    if name in SUITES:
        return SUITES[name]
    close = difflib.get_close_matches(name, SUITES, 1)
    hint = f". Did you mean {close[0]!r}?" if close else ""
    raise InputError(f"There is no suite {name!r}; there are {', '.join(SUITES)}{hint}", valid=tuple(SUITES))


def _check(
    suite: Suite,
    wish: Wish,
    url: str | None,
    protocol: str,
    repeats: int,
    workers: int,
    remote_workers: int,
    timeout_s: float,
) -> None:
    if url is not None:
        if suite.own_server:
            raise InputError(
                f"The suite {suite.name!r} needs a server of its own ({suite.own_server}): leave out 'url'"
            )
        if url.partition("://")[0] not in _SCHEMES:
            raise InputError(f"The 'url' parameter must start with {'://, '.join(_SCHEMES)}://, got {url!r} instead")
        Client(url).close()  # it refuses what is no address
    if protocol not in PROTOCOLS:
        raise InputError(f"The 'protocol' parameter must be 'http' or 'grpc', got {protocol!r} instead")
    for what, value in (("users", wish.users), ("repeats", repeats)):
        if value is not None and value < 1:
            raise InputError(f"The '{what}' parameter must be 1 or more, got {value} instead")
    for what, count in (("workers", workers), ("remote_workers", remote_workers)):
        if count < 0:
            raise InputError(f"The '{what}' parameter must be 0 or more, got {count} instead")
    for what, seconds in (("duration_s", wish.duration_s), ("rate", wish.rate), ("timeout_s", timeout_s)):
        if seconds is not None and not 0 < seconds < math.inf:
            raise InputError(f"The '{what}' parameter must be more than 0, got {seconds:g} instead")
