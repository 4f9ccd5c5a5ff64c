"""Stages, the times at which requests are due, and who sends which of them. The clock is the test's."""

from __future__ import annotations

import itertools
import statistics

import pytest

from tritium.loadtest._pace import Pace
from tritium.loadtest._plan import Plan, Stage


def stage(name: str = "all", duration_s: float = 10.0, users: int = 4, rate: float | None = None) -> Stage:
    return Stage(name=name, duration_s=duration_s, users=users, rate=rate)


class Clock:
    """A clock that only sleeping moves, by what was asked for and `late_s` more."""

    def __init__(self, late_s: float = 0.0) -> None:
        self.now_s = 100.0
        self.late_s = late_s
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds + self.late_s

    def __call__(self) -> float:
        return self.now_s


def begun(plan: Plan, clock: Clock, **options: int) -> Pace:
    pace = Pace(plan, sleep=clock.sleep, clock=clock, seed=0, **options)
    pace.begin()
    return pace


def test_a_plan_says_which_stage_it_is_and_when_all_are_over() -> None:
    plan = Plan([stage("a", 2), stage("b", 3)])
    assert plan.duration_s == 5
    assert [plan.index_at(s) for s in (0, 1.99, 2, 4.99, 5, 99)] == [0, 0, 1, 1, 2, 2]
    assert [plan.begin_s(index) for index in (0, 1)] == [0, 2]


def test_a_plan_comes_back_from_its_json_as_it_was() -> None:
    stages = [stage("a", 2, rate=7.5), Stage(name="b", duration_s=1, users=1, models=("x", "y"), rows=0, judged=False)]
    assert Plan.from_json(Plan(stages).to_json()).stages == tuple(stages)


@pytest.mark.parametrize(
    ("elapsed_s", "durations_s"), [(0.5, [0.5]), (2.0, [2.0]), (2.5, [2.0, 0.5]), (1000.0, [2.0, 3.0])]
)
def test_a_plan_that_is_cut_has_what_lies_before_the_moment(elapsed_s: float, durations_s: list[float]) -> None:
    plan = Plan([Stage(name="a", duration_s=2.0, users=1), Stage(name="b", duration_s=3.0, users=9)])
    cut = plan.until(elapsed_s)
    assert [stage.duration_s for stage in cut.stages] == durations_s
    assert [stage.users for stage in cut.stages] == [1, 9][: len(durations_s)]


def test_the_settling_of_a_stage_is_a_fifth_of_it_and_two_seconds_at_most() -> None:
    assert [stage(duration_s=s).settling_s for s in (1, 10, 600)] == [pytest.approx(0.2), 2, 2]


def test_arrivals_are_poisson_at_the_rate_of_their_stage() -> None:
    plan = Plan([stage(duration_s=50, rate=100), stage(duration_s=10), stage(duration_s=50, rate=400)])
    due = list(plan.arrivals(seed=1))
    assert due == sorted(due)
    first, second = [s for s in due if s < 50], [s for s in due if s >= 60]
    assert len(first) + len(second) == len(due), "none falls into the stage of a closed loop"
    for times, rate in ((first, 100), (second, 400)):
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        # Of an exponential distribution mean and standard deviation are the same.
        assert statistics.mean(gaps) == pytest.approx(1 / rate, rel=0.1)
        assert statistics.stdev(gaps) == pytest.approx(1 / rate, rel=0.1)


def test_several_processes_with_their_shares_make_the_whole_rate() -> None:
    plan = Plan([stage(duration_s=100, rate=300)])
    counts = [len(list(plan.arrivals(share=1 / 3, seed=seed))) for seed in range(3)]
    assert sum(counts) == pytest.approx(30_000, rel=0.03)
    assert all(count == pytest.approx(10_000, rel=0.05) for count in counts)


def test_the_same_seed_gives_the_same_times() -> None:
    plan = Plan([stage(rate=50)])
    assert list(plan.arrivals(seed=3)) == list(plan.arrivals(seed=3)) != list(plan.arrivals(seed=4))


def test_before_the_begin_a_few_users_warm_the_server_up_and_count_for_nothing() -> None:
    clock = Clock()
    pace = Pace(Plan([stage(users=2)]), sleep=clock.sleep, clock=clock, seed=0)
    turn = pace.wait(0)
    assert turn is not None
    assert turn[1] < 0


def test_in_a_closed_loop_the_users_of_the_stage_send_at_once_and_the_others_sleep_to_its_end() -> None:
    clock = Clock()
    pace = begun(Plan([stage("few", 2, users=2), stage("many", 3, users=4)]), clock)
    assert [turn and turn[0].name for turn in (pace.wait(0), pace.wait(1))] == ["few", "few"]
    assert clock.slept == []
    assert pace.wait(3) is None
    assert clock.slept == [2]
    turn = pace.wait(3)
    assert turn is not None
    assert (turn[0].name, turn[1], turn[2]) == ("many", 2, 0)


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_the_users_of_a_stage_are_shared_out_among_the_processes(processes: int) -> None:
    plan = Plan([stage(users=7)])
    shares = [begun(plan, Clock(), process=i, processes=processes).users(plan.stages[0]) for i in range(processes)]
    assert sum(shares) == 7
    assert max(shares) - min(shares) <= 1


def test_in_an_open_loop_a_free_user_sleeps_until_its_request_is_due() -> None:
    clock = Clock()
    plan = Plan([stage(rate=10)])
    pace = begun(plan, clock)
    due = list(plan.arrivals(seed="0/0"))
    for expected_s in due[:5]:
        turn = pace.wait(0)
        assert turn is not None
        assert turn[1] == pytest.approx(expected_s)
        assert turn[2] == pytest.approx(0, abs=1e-9)


def test_a_request_that_nobody_was_free_to_send_counts_from_when_it_was_due() -> None:
    clock = Clock()
    plan = Plan([stage(rate=10)])
    pace = begun(plan, clock)
    first_s = next(plan.arrivals(seed="0/0"))
    clock.now_s += 5  # the only user waited for an answer
    turn = pace.wait(0)
    assert turn is not None
    assert turn[1] == pytest.approx(first_s)
    assert turn[2] == pytest.approx(5 - first_s)


def test_waking_up_a_little_late_is_not_laid_at_the_servers_door_but_more_is() -> None:
    plan = Plan([stage(rate=10)])
    for late_s, counted_s in ((0.001, 0.0), (0.5, 0.498)):
        turn = begun(plan, Clock(late_s)).wait(0)
        assert turn is not None
        assert turn[2] == pytest.approx(counted_s, abs=1e-9)


def test_what_was_due_and_never_sent_is_known() -> None:
    clock = Clock()
    plan = Plan([stage(duration_s=10, rate=10)])
    pace = begun(plan, clock)
    assert pace.wait(0) is not None
    clock.now_s += 100
    assert pace.wait(0) is None
    assert pace.never_sent() == list(plan.arrivals(seed="0/0"))[1:]
    assert pace.never_sent() == [], "each is told once"


def test_what_was_due_until_a_run_was_cut_and_never_sent_is_known_and_no_more() -> None:
    clock = Clock()
    plan = Plan([stage(duration_s=10, rate=10)])
    pace = begun(plan, clock)
    clock.now_s += 4  # every user is busy
    assert pace.never_sent() == [due_s for due_s in plan.arrivals(seed="0/0") if due_s < 4]


def test_no_two_processes_of_any_runs_have_the_same_arrivals() -> None:
    plan = Plan([stage(rate=10)])
    paces = [
        Pace(plan, process=process, processes=2, sleep=Clock().sleep, clock=Clock(), seed=seed)
        for seed in range(3)
        for process in range(2)
    ]
    assert len({pace._next_due_s for pace in paces}) == 6


def test_where_nothing_began_nothing_was_missed() -> None:
    clock = Clock()
    assert Pace(Plan([stage(rate=10)]), sleep=clock.sleep, clock=clock).never_sent() == []
