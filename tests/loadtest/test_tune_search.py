"""The tuner's search, on machines that are made up and on a real server, and what becomes of its result."""

from __future__ import annotations

import builtins
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritium.client import InputError, MissingExtraError, ServerError
from tritium.loadtest import Knobs, LoadError, TuneResult, apply, tune
from tritium.loadtest._objectives import parse_objectives
from tritium.loadtest._proposals import Proposals
from tritium.loadtest._rig import Sample
from tritium.loadtest._space import knobs_of, space_of
from tritium.loadtest._trial import (
    FAILED,
    MEASURED,
    STOPPED,
)
from tritium.loadtest._tune import _finals, search
from tritium.repository import Repository, RepositoryError
from tritium.repository.lint import lint
from tritium.server import TritonServer

from .tuning import CURRENT, config, figures, trial


@dataclass
class Fake:
    """A machine on which every choice has its own rate, with noise; some choices do not load or answer wrong."""

    rates: Callable[[Knobs], float]
    sigma: float = 0.03
    broken: Mapping[Knobs, str] = field(default_factory=dict)
    wrong: frozenset[Knobs] = frozenset()
    refused: frozenset[Knobs] = frozenset()
    # What ends with an error when it is measured, or in the finals only.
    deadly: frozenset[Knobs] = frozenset()
    deadly_after_s: float = 0.0
    p99_ms: Callable[[Knobs], float] = lambda knobs: 2.0
    seconds: float = 0.0
    interrupt_after: float = float("inf")
    model: str = "m"
    backend: str = "fake"
    block_s: float = 0.5
    config: ModelConfig = field(default_factory=config)

    def __post_init__(self) -> None:
        self.now = knobs_of(self.config)
        self.chance = random.Random(0)
        self.loads: list[Knobs] = []

    def load(self, knobs: Knobs) -> None:
        self.seconds += 0.3
        if knobs in self.broken:
            raise ServerError(self.broken[knobs])
        self.now = knobs
        self.loads.append(knobs)

    def block(self, *, still: bool = False) -> Sample:
        self.seconds += self.block_s
        if self.seconds > self.interrupt_after:
            raise KeyboardInterrupt
        knobs = knobs_of(self.config) if still else self.now
        if knobs in self.deadly and self.seconds > self.deadly_after_s:
            raise LoadError("The process that sends has ended:")
        rate = self.rates(knobs) * (1 + self.chance.gauss(0, self.sigma))
        wrong = not still and knobs in self.wrong
        found = figures(rate * self.block_s, self.p99_ms(knobs), wrong=int(wrong))
        return Sample(replace(found, duration_s=self.block_s), {"WrongAnswerError: 0.1 off": 1} if wrong else {})

    def verify(self) -> Sequence[Any]:
        return []

    def findings(self) -> Sequence[Any]:
        @dataclass
        class Finding:
            code: str = "C1"
            message: str = "no good"

        return [Finding()] if self.now in self.refused else []

    def tuned(self, objectives: str = "", *, seed: int = 0, **more: Any) -> TuneResult:
        self.chance = random.Random(seed)
        space = space_of(self.config, users=16, cores=2)
        return search(
            self,
            Proposals(space, space.seeds(knobs_of(self.config), 2), seed=seed),
            parse_objectives(objectives or "errors=0, wrong=0"),
            space=len(space.points()),
            users=16,
            objectives=objectives,
            clock=lambda: self.seconds,
            **more,
        )


def smooth(knobs: Knobs) -> float:
    """As on a machine with two cores: two instances without a wait are best."""
    rate = 5000.0 * {1: 1.0, 2: 1.3, 4: 1.2}[knobs.instances] * {1: 1.0, 2: 0.8}[knobs.threads or 1]
    rate *= 1.08 if knobs.delay_us is None else 1 - knobs.delay_us / 10_000
    return rate * {4: 0.9, 8: 1.0, 64: 0.97}[knobs.max_batch]


class TestSearch:
    def test_a_quarter_of_the_space_is_enough_to_be_as_good_as_its_best_in_nineteen_of_twenty(self) -> None:
        best = max(map(smooth, space_of(config(), users=16, cores=2).points()))
        found = [Fake(smooth).tuned(trials=15, seed=seed) for seed in range(20)]
        assert {one.verdict for one in found} == {"better"}
        assert {len(one.trials) for one in found} == {15}
        assert max(one.noise for one in found) <= 0.1
        assert sum(smooth(one.winner) >= best * (1 - one.noise) for one in found) >= 19

    def test_a_choice_that_the_server_dies_of_is_one_failed_trial(self) -> None:
        deadly = frozenset(knobs for knobs in space_of(config(), users=16, cores=2).points() if knobs.instances == 2)
        found = Fake(smooth, deadly=deadly).tuned(trials=15)
        states = {trial.knobs.instances: trial.state for trial in found.trials}
        assert states[2] == FAILED
        assert {trial.reason for trial in found.trials if trial.state == FAILED} == {
            "The process that sends has ended:"
        }
        assert found.verdict == "better"
        assert found.winner.instances == 4

    def test_a_finalist_that_the_server_dies_of_is_out(self) -> None:
        whole = Fake(smooth).tuned(trials=15)
        best = frozenset({whole.winner})
        found = Fake(smooth, deadly=best, deadly_after_s=whole.duration_s / 2).tuned(trials=15)
        assert found.winner != whole.winner
        assert found.verdict == "better"

    def test_what_the_best_has_put_out_of_the_finals_comes_back_when_that_one_dies(self) -> None:
        rates = {1: 5_000.0, 2: 7_500.0, 4: 20_000.0}
        tried = [
            trial([rates[count] / 5_000] * 4, number=place, knobs=replace(CURRENT, instances=count))
            for place, count in enumerate(rates)
        ]
        goals = parse_objectives("errors=0, wrong=0")

        def states(rig: Fake, ends_s: float) -> dict[int, str]:
            finals = _finals(rig, goals, tried, 5, ends_s, print, lambda: rig.seconds)
            return {one.knobs.instances: one.state for one in finals}

        assert states(Fake(lambda knobs: rates[knobs.instances]), 30.0) == {1: MEASURED, 2: STOPPED, 4: MEASURED}
        dies = Fake(
            lambda knobs: rates[knobs.instances], deadly=frozenset({tried[2].knobs}), deadly_after_s=25.0, sigma=0.1
        )
        assert states(dies, 40.0) == {1: MEASURED, 2: MEASURED}

    def test_where_the_current_choice_dies_in_the_finals_the_others_go_on_beside_the_copy_that_stays(self) -> None:
        class DiesWhenLoaded(Fake):
            """Of the current choice in the finals, with both copies, until something is loaded."""

            dead = False

            def load(self, knobs: Knobs) -> None:
                self.dead = False
                super().load(knobs)

            def block(self, *, still: bool = False) -> Sample:
                self.dead |= not still and self.now == CURRENT and self.loads.count(CURRENT) > 2
                if self.dead:
                    raise LoadError("The process that sends has ended:")
                return super().block(still=still)

        found = DiesWhenLoaded(smooth).tuned(trials=15)
        assert found.finals[0].state == FAILED
        assert found.verdict == "better"
        assert smooth(found.winner) > 1.2 * smooth(CURRENT)

    def test_of_slow_models_as_many_are_in_the_finals_as_there_is_time_for(self) -> None:
        found = Fake(lambda knobs: smooth(knobs) / 100).tuned(budget_s=300.0)
        assert 1 < len(found.finals) < 6
        assert found.duration_s <= 310

    def test_the_current_choice_is_first_and_hopeless_ones_are_stopped_after_few_blocks(self) -> None:
        found = Fake(lambda knobs: smooth(knobs) if knobs.threads == 1 else 500.0).tuned(trials=12)
        assert found.trials[0].knobs == found.current == CURRENT
        stopped = [one for one in found.trials if one.state == STOPPED]
        assert {len(one.blocks) for one in stopped if one.knobs.threads == 2} == {2}
        assert all(one.reason for one in stopped)

    def test_no_choice_is_tried_twice_and_the_search_ends_with_the_space(self) -> None:
        found = Fake(smooth).tuned()
        assert len({one.knobs for one in found.trials}) == len(found.trials) == found.space == 60

    def test_the_search_ends_with_its_budget_finals_included(self) -> None:
        found = Fake(smooth).tuned(budget_s=120.0)
        assert 10 < len(found.trials) < 60
        assert 60 < found.duration_s < 123
        assert len(found.finals) > 3

    @pytest.mark.parametrize("seed", range(5))
    def test_where_all_are_equal_the_current_config_is_kept(self, seed: int) -> None:
        found = Fake(lambda knobs: 5000.0).tuned(trials=12, seed=seed)
        assert (found.verdict, found.ok, found.winner) == ("keep", True, CURRENT)
        assert found.after == found.before

    def test_a_choice_that_does_not_load_or_answers_wrong_or_that_lint_refuses_does_not_win(self) -> None:
        seeds = space_of(config(), users=16, cores=2).seeds(CURRENT, 2)
        best = sorted(seeds, key=smooth)[-4:]
        found = Fake(
            smooth, broken={best[3]: "no such key"}, wrong=frozenset({best[2]}), refused=frozenset({best[1]})
        ).tuned(trials=8)
        reasons = {one.knobs: one.reason for one in found.trials if one.state == FAILED}
        assert reasons == {best[3]: "no such key", best[2]: "WrongAnswerError: 0.1 off"}
        assert found.winner not in best[1:]

    def test_a_model_that_does_not_answer_right_as_it_is_is_not_tuned(self) -> None:
        with pytest.raises(InputError, match=r"does not answer right as it is: WrongAnswerError.*tritium verify"):
            Fake(smooth, wrong=frozenset({CURRENT})).tuned()

    def test_with_an_objective_the_fastest_that_meets_it_wins(self) -> None:
        found = Fake(smooth, p99_ms=lambda knobs: 3.0 if knobs.instances == 1 else 9.0).tuned("p99<5ms", trials=20)
        assert found.winner.instances == 1
        assert [verdict.ok for verdict in found.verdicts] == [True]
        assert found.ok

    def test_an_objective_that_nothing_meets_is_a_verdict_of_no(self) -> None:
        found = Fake(smooth).tuned("p99<1ms", trials=6)
        assert (found.verdict, found.ok) == ("missed", False)
        assert [str(verdict) for verdict in found.verdicts] == ["p99<1ms: NOT met, 2 ms"]

    def test_slow_models_get_longer_blocks(self) -> None:
        rig = Fake(lambda knobs: smooth(knobs) / 50)
        rig.tuned(trials=2)
        assert rig.block_s == pytest.approx(200 / 100, rel=0.2)

    @pytest.mark.parametrize("share", [0.3, 0.95])
    def test_an_interrupt_gives_the_best_so_far_in_the_search_and_in_the_finals(self, share: float) -> None:
        whole = Fake(smooth).tuned(trials=12)
        found = Fake(smooth, interrupt_after=share * whole.duration_s).tuned(trials=12)
        assert (len(found.trials) == 12) == (share > 0.9)
        assert (found.verdict, found.ok, found.finals) == ("interrupted", False, ())
        assert found.winner == max(found.trials, key=lambda one: one.rank).knobs
        assert found.reason.startswith("It was interrupted; the best of ")

    def test_an_interrupt_before_anything_was_measured_goes_on(self) -> None:
        with pytest.raises(KeyboardInterrupt):
            Fake(smooth, interrupt_after=0.0).tuned()

    def test_a_single_trial_has_nobody_to_play_against(self) -> None:
        found = Fake(smooth).tuned(trials=1)
        assert (found.verdict, len(found.finals)) == ("keep", 1)


class TestResult:
    @pytest.fixture
    def found(self) -> TuneResult:
        return Fake(smooth).tuned("p99<5ms", trials=12)

    def test_it_is_saved_as_json(self, found: TuneResult, tmp_path: Path) -> None:
        found.save(tmp_path / "found.json")
        document = json.loads((tmp_path / "found.json").read_text())
        assert document == found.to_json()
        assert document["verdict"] == "better"
        assert document["winner"] == vars(found.winner)
        assert len(document["trials"]) == 12
        assert set(document["front"]) <= set(range(12))
        assert "instance_group" in document["config"]
        with pytest.raises(InputError, match="cannot be written"):
            found.save(tmp_path / "nowhere" / "found.json")

    @pytest.mark.parametrize(("name", "begin"), [("found.png", b"\x89PNG"), ("found.svg", b"<?xml")])
    def test_it_is_drawn(self, found: TuneResult, tmp_path: Path, name: str, begin: bytes) -> None:
        found.plot(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(begin)

    def test_a_format_that_there_is_not_is_refused(self, found: TuneResult, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"found\.doc"):
            found.plot(tmp_path / "found.doc")

    @pytest.mark.parametrize("package", ["optuna", "matplotlib"])
    def test_a_missing_package_is_named_with_its_extra(
        self, found: TuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
    ) -> None:
        real = builtins.__import__

        def without(name: str, *rest: Any, **more: Any) -> Any:
            if name.partition(".")[0] == package:
                raise ImportError(name)
            return real(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(MissingExtraError, match=rf"'{package}'.*tritium\[loadtest\]"):
            if package == "optuna":
                Fake(smooth).tuned()
            else:
                found.plot(tmp_path / "found.png")


class TestApply:
    @pytest.fixture
    def found(self, copy_of: Callable[[str], Repository]) -> tuple[TuneResult, Repository]:
        repository = copy_of("digits_mlp")
        rig = Fake(smooth, model="digits_mlp", config=repository.config("digits_mlp"))
        return rig.tuned(trials=8), repository

    def test_the_winner_is_written_and_the_old_file_kept_as_it_was(self, found: tuple[TuneResult, Repository]) -> None:
        result, repository = found
        before = (repository.path / "digits_mlp/config.pbtxt").read_bytes()
        kept = apply(result, repository)
        assert kept.name == "config.pbtxt.before-tuning"
        assert kept.read_bytes() == before
        assert repository.config("digits_mlp") == result.after
        assert knobs_of(repository.config("digits_mlp")) == result.winner
        assert lint(repository) == []

    def test_an_old_file_that_was_kept_before_is_never_overwritten(self, found: tuple[TuneResult, Repository]) -> None:
        result, repository = found
        older = repository.path / "digits_mlp/config.pbtxt.before-tuning"
        older.write_text("mine")
        assert apply(result, repository).name == "config.pbtxt.before-tuning-2"
        assert older.read_text() == "mine"

    def test_a_config_that_was_changed_meanwhile_is_not_replaced(self, found: tuple[TuneResult, Repository]) -> None:
        result, repository = found
        path = repository.path / "digits_mlp/config.pbtxt"
        path.write_text(path.read_text().replace("max_batch_size: 64", "max_batch_size: 32"))
        text = path.read_text()
        with pytest.raises(RepositoryError, match="was changed while it was tuned"):
            apply(result, repository)
        assert path.read_text() == text
        assert [file.name for file in path.parent.glob("config*")] == ["config.pbtxt"]

    def test_there_is_nothing_to_apply_where_the_current_config_is_kept(
        self, copy_of: Callable[[str], Repository]
    ) -> None:
        repository = copy_of("digits_mlp")
        rig = Fake(lambda knobs: 5000.0, model="digits_mlp", config=repository.config("digits_mlp"))
        with pytest.raises(InputError, match="nothing to apply: Keep what you have"):
            apply(rig.tuned(trials=4), repository)


class TestTune:
    @pytest.mark.skipif("TRITIUM_SLOW_TESTS" not in os.environ, reason="up to a minute: TRITIUM_SLOW_TESTS=1 runs it")
    def test_a_short_run_measures_right_answers_and_leaves_the_repository_alone(
        self, copy_of: Callable[[str], Repository], server: TritonServer
    ) -> None:
        repository = copy_of("digits_mlp")
        before = {path: path.read_bytes() for path in repository.path.rglob("*") if path.is_file()}
        lines: list[str] = []
        found = tune(
            "digits_mlp",
            repository=repository,
            trials=3,
            users=4,
            objectives="p99<10s",
            budget_s=40,
            progress=lines.append,
        )
        assert len(found.trials) == 3
        assert found.trials[0].knobs == knobs_of(repository.config("digits_mlp"))
        assert all(one.state in (MEASURED, STOPPED) for one in found.trials)
        assert all(one.requests_per_s > 0 and 0 < one.p50_ms <= one.p99_ms for one in found.trials)
        assert all(block.errors == 0 for one in found.trials for block in one.blocks)
        assert found.ok
        assert 1 <= len(found.finals) <= 3, "who is slower beyond the noise does not get there"
        assert found.noise > 0
        assert found.backend == "pytorch"
        assert len(lines) == 4
        assert {path: path.read_bytes() for path in repository.path.rglob("*") if path.is_file()} == before

    def test_a_model_whose_answers_are_wrong_is_refused(self, tampered: Repository, server: TritonServer) -> None:
        with pytest.raises(InputError, match="does not answer right as it is: WrongAnswerError"):
            tune("digits_mlp", repository=tampered, trials=2, users=4)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"trials": 0}, "'trials' parameter of tune must be 1 or more, got 0"),
            ({"users": 0}, "'users' parameter of tune must be 1 or more, got 0"),
            ({"budget_s": -1.0}, "'budget_s' parameter of tune must be more than 0"),
            ({"objectives": "p98<1ms"}, "there are p50"),
            ({"objectives": "memory<5%"}, "needs a server on this machine"),
            ({"objectives": "digits_cnn:p99<5ms"}, "which is not sent to"),
        ],
    )
    def test_an_argument_that_cannot_be_used_is_refused_at_once(
        self, zoo: Repository, arguments: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            tune("digits_mlp", repository=zoo, **arguments)

    def test_a_model_that_is_not_there_is_refused_with_the_closest(self, zoo: Repository) -> None:
        with pytest.raises(InputError, match="Did you mean 'digits_mlp'"):
            tune("digits_mlq", repository=zoo)
