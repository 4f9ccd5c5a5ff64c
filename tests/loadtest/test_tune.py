"""The tuner: what it chooses from, how it decides on figures that are given, and a short run on a real server."""

from __future__ import annotations

import builtins
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from tritium.client import InputError, MissingExtraError, ServerError, TensorSpec
from tritium.loadtest import Figures, Knobs, Trial, TuneResult, apply, parse_budget, tune
from tritium.loadtest._objectives import parse_objectives
from tritium.loadtest._proposals import Proposals
from tritium.loadtest._rig import Sample
from tritium.loadtest._space import Space, configured, knobs_of, simplicity, space_of
from tritium.loadtest._trial import (
    FAILED,
    MEASURED,
    STOPPED,
    deviation,
    front,
    hopeless,
    margin,
    missed,
)
from tritium.loadtest._tune import decide, search
from tritium.repository import Repository, RepositoryError, Serving, model_config
from tritium.repository.lint import lint
from tritium.server import TritonServer

ROW = [TensorSpec("x", "FP32", (-1, 4))]
T = TypeVar("T")
CURRENT = Knobs(instances=1, threads=1, max_batch=64, delay_us=0)


def config(**serving: Any) -> ModelConfig:
    return model_config("m", backend="onnxruntime", inputs=ROW, outputs=[tensor("y")], serving=Serving(**serving))


def tensor(name: str) -> TensorSpec:
    return TensorSpec(name, "FP32", (-1, 4))


def figures(rate: float, p99_ms: float = 1.0, **more: int) -> Figures:
    right = round(rate)
    return Figures(duration_s=1.0, requests=right + sum(more.values()), right=right, p99_ms=p99_ms, **more)


def trial(gains: Sequence[float], *, p99_ms: float = 1.0, number: int = 1, **more: Any) -> Trial:
    return Trial(
        number=number,
        knobs=more.pop("knobs", replace(CURRENT, instances=2)),
        blocks=tuple(figures(10_000 * gain, p99_ms) for gain in gains),
        beside=(figures(10_000),) * len(gains),
        **more,
    )


def shuffled(items: Sequence[T]) -> list[T]:
    return random.Random(0).sample(items, len(items))


class TestBudget:
    @pytest.mark.parametrize(
        ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("0.5m", 30), (" 10M ", 600)]
    )
    def test_a_time_with_its_unit_is_read(self, text: str, seconds: float) -> None:
        assert parse_budget(text) == seconds

    @pytest.mark.parametrize("text", ["", "10", "ten minutes", "-5m", "0s", "5m10", "10d", "m"])
    def test_anything_else_is_refused_with_an_example(self, text: str) -> None:
        with pytest.raises(InputError, match="'90s', '10m' or '1h30m'"):
            parse_budget(text)

    def test_a_bare_number_is_asked_for_its_unit(self) -> None:
        with pytest.raises(InputError, match="Did you mean '10s' or '10m'"):
            parse_budget("10")


class TestSpace:
    def test_two_cores_and_sixteen_users_give_sixty_choices_each_once(self) -> None:
        space = space_of(config(), users=16, cores=2)
        assert space == Space(
            instances=(1, 2, 4),
            threads=(1, 2),
            max_batches=(4, 8, 64),
            delays_us=(None, 0, 500, 2000),
            accelerators=("",),
            unbatched=64,
        )
        points = space.points()
        assert len(points) == len(set(points)) == 60

    @pytest.mark.parametrize("cores", [1, 2, 3, 16, 128])
    @pytest.mark.parametrize("users", [1, 2, 5, 16, 200])
    def test_the_current_choice_is_the_first_seed_and_every_seed_is_a_point(self, cores: int, users: int) -> None:
        odd = config(instances=7, max_batch_size=33, queue_delay_us=123)
        space = space_of(odd, users=users, cores=cores)
        seeds = space.seeds(knobs_of(odd), cores)
        assert seeds[0] == knobs_of(odd)
        assert set(seeds) <= set(space.points())
        assert len(seeds) == len(set(seeds))

    def test_a_model_without_a_batch_axis_has_only_instances_and_threads_to_choose(self) -> None:
        alone = config()
        alone.max_batch_size = 0
        alone.ClearField("dynamic_batching")
        space = space_of(alone, users=16, cores=2)
        assert (space.max_batches, space.delays_us) == ((0,), (None,))
        assert all(configured(alone, point).max_batch_size == 0 for point in space.points())
        assert not any(configured(alone, point).HasField("dynamic_batching") for point in space.points())

    def test_a_larger_batch_than_there_are_requests_is_tried_only_where_the_current_one_is_smaller(self) -> None:
        assert space_of(config(max_batch_size=4), users=16, cores=2).max_batches == (4, 8, 16)

    def test_a_gpu_adds_providers_and_precisions_to_onnx_models_alone(self) -> None:
        space = space_of(config(), users=16, cores=2, gpus=1)
        assert set(space.accelerators) == {"", "cpu", "cuda", "tensorrt-fp32", "tensorrt-fp16"}
        torch = config()
        torch.backend = "pytorch"
        assert space_of(torch, users=16, cores=2, gpus=1).accelerators == ("",)

    def test_a_python_model_has_no_threads_to_choose(self) -> None:
        python = config()
        python.backend = "python"
        assert space_of(python, users=16, cores=2).threads == (None,)

    def test_an_ensemble_and_a_model_of_sequences_are_refused_with_the_way_round(self) -> None:
        ensemble, sequences = ModelConfig(name="e"), config()
        ensemble.ensemble_scheduling.step.add(model_name="m")
        sequences.sequence_batching.SetInParent()
        with pytest.raises(InputError, match="Tune the models of its steps"):
            space_of(ensemble, users=1, cores=1)
        with pytest.raises(InputError, match="sequences"):
            space_of(sequences, users=1, cores=1)

    def test_several_instance_groups_and_threads_that_are_no_number_are_refused(self) -> None:
        groups, words = config(), config()
        groups.instance_group.add(count=1)
        words.parameters["intra_op_thread_count"].string_value = "many"
        with pytest.raises(InputError, match="2 instance groups"):
            knobs_of(groups)
        with pytest.raises(InputError, match="whole number, got 'many'"):
            knobs_of(words)


class TestConfigured:
    @pytest.mark.parametrize("gpus", [0, 1])
    def test_every_point_is_read_back_from_the_config_that_it_makes(self, gpus: int) -> None:
        for point in space_of(config(), users=16, cores=2, gpus=gpus).points():
            assert knobs_of(configured(config(), point)) == point

    def test_the_current_choice_changes_nothing_and_the_config_given_stays_as_it_is(self) -> None:
        given = config(queue_delay_us=100)
        before = given.SerializeToString(deterministic=True)
        assert configured(given, knobs_of(given)) == given
        configured(given, replace(CURRENT, instances=4, threads=2, delay_us=None, accelerator="cuda"))
        assert given.SerializeToString(deterministic=True) == before

    def test_the_queue_policy_stays_and_preferred_sizes_above_the_largest_go(self) -> None:
        given = config()
        given.dynamic_batching.preferred_batch_size.extend([4, 32])
        made = configured(given, replace(CURRENT, max_batch=8, delay_us=500))
        assert made.dynamic_batching.default_queue_policy == given.dynamic_batching.default_queue_policy
        assert list(made.dynamic_batching.preferred_batch_size) == [4]

    def test_tensorrt_has_its_precision_and_cuda_behind_it(self) -> None:
        made = configured(config(), replace(CURRENT, accelerator="tensorrt-fp16"))
        first, second = made.optimization.execution_accelerators.gpu_execution_accelerator
        assert (first.name, dict(first.parameters), second.name) == ("tensorrt", {"precision_mode": "FP16"}, "cuda")
        assert made.instance_group[0].kind == ModelInstanceGroup.KIND_AUTO

    def test_simple_is_few_threads_then_the_batch_that_clients_know_then_no_waiting(self) -> None:
        ordered = [
            CURRENT,
            replace(CURRENT, delay_us=500),
            replace(CURRENT, max_batch=8),
            replace(CURRENT, threads=2),
            replace(CURRENT, instances=2),
            replace(CURRENT, instances=2, threads=2),
        ]
        assert sorted(shuffled(ordered), key=lambda knobs: simplicity(knobs, CURRENT)) == ordered


class TestTrial:
    def test_a_trial_is_worth_the_median_of_its_blocks_beside_the_current_choice(self) -> None:
        found = trial([1.2, 0.1, 1.3, 1.25])
        assert found.gain == pytest.approx(1.225)
        assert found.requests_per_s == pytest.approx(12_250)

    @pytest.mark.parametrize(
        ("objective", "miss"),
        [
            ("p99<25ms", 0.0),
            ("p99<20ms", 0.0),
            ("p99<10ms", 0.5),
            ("rps>20000", 0.5),
            ("p99<15ms", 1e-9),
            ("errors=0", 0),
        ],
    )
    def test_a_miss_is_a_part_of_the_objective_s_value(self, objective: str, miss: float) -> None:
        (goal,) = parse_objectives(objective)
        assert missed(goal, [figures(10_000, 15.0)], "m") == pytest.approx(miss, abs=1e-12)

    def test_without_a_right_answer_every_latency_is_missed_by_far(self) -> None:
        (goal,) = parse_objectives("p99<25ms")
        assert missed(goal, [figures(0, timed_out=3)], "m") == 1e3

    def test_a_block_beside_a_stall_of_the_current_choice_says_nothing(self) -> None:
        found = replace(trial([1.2, 1.3, 1.2]), beside=(figures(10_000), figures(0), figures(10_000)))
        assert found.gains == pytest.approx([1.2, 1.3, 1.2])
        nothing = replace(trial([1.2]), beside=(figures(0),))
        assert (nothing.gains, nothing.gain) == ([], 0.0)
        assert hopeless(nothing, trial([1.5] * 4), 0.05) == ""

    def test_choices_that_meet_the_objectives_come_before_faster_ones_that_do_not(self) -> None:
        ordered = [
            trial([2.0], state=FAILED),
            trial([3.0], misses=(0.5, 0.1)),
            trial([1.0], misses=(0.0, 0.2)),
            trial([0.5], misses=(0.0, 0.0)),
            trial([0.6], misses=(0.0, 0.0)),
        ]
        assert sorted(shuffled(ordered), key=lambda one: one.rank) == ordered

    def test_the_front_has_what_none_beats_in_both(self) -> None:
        fast, quick, worse, equal, stopped = (
            trial([2.0], p99_ms=5.0, number=0),
            trial([1.0], p99_ms=2.0, number=1),
            trial([0.9], p99_ms=3.0, number=2),
            trial([2.0], p99_ms=6.0, number=3),
            trial([3.0], p99_ms=1.0, number=4, state=STOPPED),
        )
        assert front([worse, fast, stopped, equal, quick]) == [quick, fast]

    def test_the_deviation_is_that_of_the_blocks_whatever_stalls_and_however_the_machine_drifts(self) -> None:
        chance = random.Random(0)
        sigma = 0.05
        noisy = [trial([(1 + 0.02 * place) * (1 + chance.gauss(0, sigma)) for place in range(8)]) for _ in range(40)]
        stalled = [replace(one, blocks=(figures(10), *one.blocks[1:])) for one in noisy]
        assert deviation(noisy) == pytest.approx(sigma, rel=0.2)
        assert deviation(stalled) == pytest.approx(sigma, rel=0.4)
        assert deviation([trial([1.0, 1.0])]) == 0.01
        assert 0 < deviation([]) < 1

    def test_the_margin_covers_nineteen_of_twenty_pairs_of_equals(self) -> None:
        chance, sigma = random.Random(1), 0.05
        draw: Callable[[], float] = lambda: trial([1 + chance.gauss(0, sigma) for _ in range(9)]).gain  # noqa: E731
        outside = sum(abs(draw() / draw() - 1) > margin(sigma, 9, 9) for _ in range(2000))
        assert outside / 2000 == pytest.approx(0.05, abs=0.03)


class TestHopeless:
    def test_nothing_is_hopeless_without_a_best(self) -> None:
        assert hopeless(trial([0.1]), None, 0.05) == ""

    def test_a_trial_stops_when_even_with_luck_it_is_below_the_best(self) -> None:
        best = trial([1.5] * 4)
        assert "1.50 has been seen" in hopeless(trial([1.0] * 2), best, 0.05)
        assert hopeless(trial([1.4] * 2), best, 0.05) == ""

    def test_a_single_stall_stops_nothing(self) -> None:
        best = trial([1.5] * 4)
        assert hopeless(trial([0.1]), best, 0.05) == ""
        assert hopeless(trial([0.1, 1.5]), best, 0.05) == ""

    def test_more_blocks_make_a_smaller_difference_clear(self) -> None:
        best = trial([1.0] * 4)
        assert not hopeless(trial([0.91] * 2), best, 0.05)
        assert hopeless(trial([0.91] * 8), best, 0.05)

    def test_a_slow_one_goes_on_if_it_meets_objectives_that_the_best_misses(self) -> None:
        best = trial([2.0] * 4, misses=(0.3,))
        assert hopeless(trial([1.0] * 2, misses=(0.0,)), best, 0.05) == ""

    def test_one_far_from_the_objectives_stops_if_another_meets_them(self) -> None:
        best = trial([1.0] * 4, misses=(0.0,))
        assert "far from the objectives" in hopeless(trial([1.5] * 2, misses=(0.9,)), best, 0.05)
        assert hopeless(trial([1.5] * 2, misses=(0.2,)), best, 0.05) == ""


class TestDecide:
    current = trial([1.0] * 8, knobs=CURRENT, number=0, p99_ms=4.0)

    def test_what_is_better_by_no_more_than_the_noise_is_not_taken(self) -> None:
        best, verdict, reason = decide([self.current, trial([1.04] * 8)], 0.05)
        assert (best, verdict) == (self.current, "keep")
        assert reason == "Keep what you have: nothing has more than 1.04 times its throughput, and the noise is ±5%"

    def test_among_equals_the_simplest_wins(self) -> None:
        large = trial([1.32] * 8, knobs=replace(CURRENT, instances=4, threads=2))
        small = trial([1.30] * 8, knobs=replace(CURRENT, delay_us=None))
        best, verdict, reason = decide([self.current, large, small], 0.05)
        assert (best, verdict) == (small, "better")
        assert reason == (
            "1.30 times the throughput of the current config (noise ±5%), p99 4 → 1 ms: delay_us 0 → off."
        )

    def test_a_worse_one_is_no_equal_however_much_noise_there_is(self) -> None:
        large = trial([2.0] * 8, knobs=replace(CURRENT, instances=4))
        small = trial([1.7] * 8, knobs=replace(CURRENT, delay_us=None))
        assert decide([self.current, large, small], 0.5)[0] == large

    def test_objectives_that_the_current_choice_misses_are_worth_some_throughput(self) -> None:
        slower = trial([0.8] * 8, knobs=replace(CURRENT, delay_us=None), misses=(0.0,))
        best, verdict, reason = decide([replace(self.current, misses=(0.2,)), slower], 0.05)
        assert (best, verdict) == (slower, "better")
        assert reason.startswith("It meets the objectives, which the current config does not. 0.80 times")

    def test_where_nothing_meets_them_the_least_miss_is_named(self) -> None:
        other = trial([0.8] * 8, misses=(0.1,))
        best, verdict, reason = decide([replace(self.current, misses=(0.2,)), other], 0.05)
        assert (best, verdict) == (other, "missed")
        assert reason.startswith("No choice meets the objectives; 2 instances × 1 thread")

    def test_a_smaller_largest_batch_is_said_aloud(self) -> None:
        reason = decide([self.current, trial([1.5] * 8, knobs=replace(CURRENT, max_batch=8))], 0.05)[2]
        assert reason.endswith("Requests of more than 8 rows will be refused, as those of more than 64 are now.")


@dataclass
class Fake:
    """A machine on which every choice has its own rate, with noise; some choices do not load or answer wrong."""

    rates: Callable[[Knobs], float]
    sigma: float = 0.03
    broken: Mapping[Knobs, str] = field(default_factory=dict)
    wrong: frozenset[Knobs] = frozenset()
    refused: frozenset[Knobs] = frozenset()
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

    def tuned(self, objectives: str = "", **more: Any) -> TuneResult:
        space = space_of(self.config, users=16, cores=2)
        return search(
            self,
            Proposals(space, space.seeds(knobs_of(self.config), 2), seed=0),
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
    @pytest.mark.parametrize("seed", range(3))
    def test_a_quarter_of_the_space_is_enough_to_be_as_good_as_its_best(self, seed: int) -> None:
        rig = Fake(smooth)
        rig.chance = random.Random(seed)
        found = rig.tuned(trials=15)
        best = max(map(smooth, space_of(config(), users=16, cores=2).points()))
        assert found.verdict == "better"
        assert len(found.trials) == 15
        assert smooth(found.winner) >= best * (1 - found.noise)
        assert found.noise <= 0.1

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
        assert 60 < found.duration_s < 125
        assert len(found.finals) == 4

    def test_where_all_are_equal_the_current_config_is_kept(self) -> None:
        found = Fake(lambda knobs: 5000.0).tuned(trials=12)
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
            ({"objectives": "digits_cnn:p99<5ms"}, "which was not sent to"),
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
