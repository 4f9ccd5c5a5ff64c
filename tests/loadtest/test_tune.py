"""The tuner: what it chooses from, and how it decides on figures that are given."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from tritium.client import InputError
from tritium.loadtest import Trial, parse_budget
from tritium.loadtest._objectives import parse_objectives
from tritium.loadtest._space import Space, configured, knobs_of, simplicity, space_of
from tritium.loadtest._trial import (
    FAILED,
    STOPPED,
    deviation,
    front,
    hopeless,
    margin,
    missed,
)
from tritium.loadtest._tune import decide

from .tuning import CURRENT, config, figures, shuffled, trial


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


def noisy(seed: int, blocks: int, sigma: float = 0.05) -> Trial:
    """A choice that is as good as the current one, and the machine strays under both."""
    chance = random.Random(seed)
    rates = [10_000 * (1 + chance.gauss(0, sigma)) for _ in range(2 * blocks)]
    made = trial([1.0] * blocks)
    return replace(made, blocks=tuple(map(figures, rates[:blocks])), beside=tuple(map(figures, rates[blocks:])))


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
        straying = [trial([(1 + 0.02 * place) * (1 + chance.gauss(0, sigma)) for place in range(8)]) for _ in range(40)]
        stalled = [replace(one, blocks=(figures(10), *one.blocks[1:])) for one in straying]
        assert deviation(straying) == pytest.approx(sigma, rel=0.2)
        assert deviation(stalled) == pytest.approx(sigma, rel=0.4)
        assert deviation([trial([1.0, 1.0])]) == 0.01
        assert 0 < deviation([]) < 1

    @pytest.mark.parametrize("blocks", [6, 24])
    def test_the_margin_covers_nineteen_of_twenty_pairs_of_equals_by_what_their_blocks_show(self, blocks: int) -> None:
        pairs = [(noisy(seed, blocks), noisy(10_000 + seed, blocks)) for seed in range(1, 1500)]
        limit = margin(deviation(trial for pair in pairs for trial in pair), blocks, blocks)
        outside = sum(abs(one.gain / other.gain - 1) > limit for one, other in pairs)
        assert outside / len(pairs) == pytest.approx(0.03, abs=0.025)

    def test_the_margin_covers_nineteen_of_twenty_where_the_best_of_several_is_looked_at(self) -> None:
        rounds = [[noisy(5 * seed + place, 12) for place in range(6)] for seed in range(500)]
        limit = margin(deviation(trial for one in rounds for trial in one), 12, 12, comparisons=5)
        outside = sum(max(other.gain for other in others) > first.gain * (1 + limit) for first, *others in rounds)
        # To the one side only, and the pairs have one in common.
        assert outside / len(rounds) < 0.04


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

    def test_what_counts_is_the_current_choice_measured_in_the_same_place_and_not_its_other_copy(self) -> None:
        slower_place = trial([0.95] * 8, knobs=CURRENT, number=0)
        other = trial([1.02] * 8)
        best, verdict, reason = decide([slower_place, other], 0.05)
        assert (best, verdict) == (other, "better")
        assert reason.startswith("1.07 times the throughput")
        faster_place = trial([1.06] * 8, knobs=CURRENT, number=0)
        assert decide([faster_place, trial([1.08] * 8)], 0.05)[1] == "keep"

    def test_among_equals_the_simplest_wins(self) -> None:
        large = trial([1.32] * 8, knobs=replace(CURRENT, instances=4, threads=2))
        small = trial([1.30] * 8, knobs=replace(CURRENT, delay_us=None))
        best, verdict, reason = decide([self.current, large, small], 0.05)
        assert (best, verdict) == (small, "better")
        assert reason == (
            "1.30 times the throughput of the current config (noise ±5%), p99 4 → 1 ms: delay_us 0 → off."
        )

    def test_what_is_simpler_is_taken_only_if_it_too_is_better_than_the_current_one(self) -> None:
        large = trial([1.06] * 8, knobs=replace(CURRENT, instances=4))
        small = trial([1.03] * 8, knobs=replace(CURRENT, delay_us=None))
        assert decide([self.current, large, small], 0.05)[0] == large

    def test_one_that_was_stopped_does_not_win(self) -> None:
        stopped = trial([1.5] * 3, knobs=replace(CURRENT, instances=4), state=STOPPED)
        other = trial([1.4] * 8)
        assert decide([self.current, stopped, other], 0.05)[:2] == (other, "better")

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
