"""What comes next, what follows from a failure, and when it ends."""

from dataclasses import replace
from pathlib import Path

import pytest
from measuring import tiny_request

from bench.errors import BenchError
from bench.plan import Plan, make_plan
from bench.scheduler.budget import Budget, parse_duration
from bench.scheduler.dispatch import Dispatcher
from bench.scheduler.listener import Listener
from bench.scheduler.task import Result, Task, tasks_of
from bench.spec import key_of
from bench.store import Store

ATTACKS = ("fgsm", "pgd3", "square5")


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Heard(Listener):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def said(self, text: str) -> None:
        self.lines.append(text)

    def failed(self, what: str, error: str) -> None:
        self.lines.append(f"{what}: {error}")


@pytest.fixture
def plan(tiny_npz: Path, tmp_path: Path) -> Plan:
    request = tiny_request(tiny_npz, defenses=("vanilla", "at"), attacks=ATTACKS)
    return make_plan(request, tmp_path / "checkpoints", tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def dispatcher(plan: Plan, store: Store, clock: Clock, *, budget: Budget | None = None) -> Dispatcher:
    """Trainings take 10 s, or 5 for vanilla; attacks a second for each step, and one more for at."""
    tasks = tasks_of(
        plan,
        lambda job: 5.0 if job.spec.defense_name == "vanilla" else 10.0,
        lambda job, cells: max(c.attack.steps for c in cells) + (job.spec.defense_name == "at"),
    )
    return Dispatcher(plan, tasks, store, store.begin_run({}), 1, budget or Budget(clock=clock), Heard(), clock)


def result_of(task: Task, **changes: object) -> Result:
    done = Result(frozenset(map(key_of, task.cells)), len(task.cells))
    return replace(done, **changes)  # type: ignore[arg-type]


def name(task: Task) -> str:
    """What a task is called, without what is the same for all of them."""
    return task.what.replace(" (seed 0) under", " under").replace(" at eps 0.1", "")


def drained(dispatch: Dispatcher) -> list[str]:
    order = []
    while not dispatch.over:
        task = dispatch.next()
        assert task is not None
        order.append(name(task))
        dispatch.finish(task, result_of(task))
    return order


def test_cheap_tasks_come_first_and_attacks_after_their_training(plan: Plan, store: Store, clock: Clock) -> None:
    assert drained(dispatcher(plan, store, clock)) == [
        "vanilla (seed 0)", "vanilla under fgsm", "vanilla under pgd3", "vanilla under square5",
        "at (seed 0)", "at under fgsm", "at under pgd3", "at under square5",
    ]  # fmt: skip


def test_a_second_worker_gets_nothing_that_waits_for_a_training(plan: Plan, store: Store, clock: Clock) -> None:
    dispatch = dispatcher(plan, store, clock)
    first, second = dispatch.next(), dispatch.next()
    assert first is not None
    assert second is not None
    assert [first.what, second.what] == ["vanilla (seed 0)", "at (seed 0)"]
    assert dispatch.next() is None
    assert not dispatch.over
    dispatch.finish(second, Result())
    task = dispatch.next()
    assert task is not None
    assert name(task) == "at under fgsm"


def test_a_network_that_cannot_be_had_takes_its_attacks_with_it_and_nothing_else(
    plan: Plan, store: Store, clock: Clock
) -> None:
    dispatch = dispatcher(plan, store, clock)
    task = dispatch.next()
    assert task is not None
    dispatch.finish(task, Result(failures=("vanilla (seed 0): boom",), broken=True))
    assert drained(dispatch) == ["at (seed 0)", "at under fgsm", "at under pgd3", "at under square5"]
    assert (dispatch.done, dispatch.failed, dispatch.failures) == (3, 3, ["vanilla (seed 0): boom"])


def test_a_task_that_kills_its_worker_twice_has_failed_and_is_stored_so(plan: Plan, store: Store, clock: Clock) -> None:
    dispatch = dispatcher(plan, store, clock)
    training = dispatch.next()
    assert training is not None
    store.record_weights(training.job.weights_key, "0" * 64, {}, [], None, dispatch.run)
    dispatch.finish(training, Result())
    task = dispatch.next()
    assert task is not None
    dispatch.died(task, "SIGKILL")
    again = dispatch.next()
    assert again is not None
    assert (again.what, again.batch) == (task.what, 32)
    dispatch.died(again, "SIGKILL")
    rows = store.cells(status="failed")
    assert [row.attack for row in rows] == ["fgsm"]
    assert "2 workers were killed at it (SIGKILL)" in str(rows[0].error)
    assert len(drained(dispatch)) == 6
    assert (dispatch.done, dispatch.failed, len(dispatch.failures)) == (5, 1, 1)


def test_a_training_that_kills_its_worker_twice_has_failed(plan: Plan, store: Store, clock: Clock) -> None:
    from bench.store.roster import Roster

    dispatch = dispatcher(plan, store, clock)
    for _ in range(2):
        task = dispatch.next()
        assert task is not None
        assert task.what == "vanilla (seed 0)"
        dispatch.died(task, "SIGKILL")
    assert [failure.what for failure in Roster(store).failures("train:")] == ["vanilla (seed 0)"]
    assert len(drained(dispatch)) == 4


def test_a_worker_that_is_killed_while_it_loads_a_network_breaks_the_network_alone(
    plan: Plan, store: Store, clock: Clock
) -> None:
    trained = replace(plan, jobs=(replace(plan.jobs[0], trained=True), plan.jobs[1]))
    dispatch = dispatcher(trained, store, clock)
    for _ in range(2):
        task = dispatch.next()
        assert task is not None
        assert name(task) == "vanilla under fgsm"
        dispatch.died(task, "SIGKILL")
    assert drained(dispatch) == ["at (seed 0)", "at under fgsm", "at under pgd3", "at under square5"]
    assert (dispatch.done, dispatch.failed) == (3, 3)


def test_what_failed_beside_what_is_held_is_not_tried_again(plan: Plan, store: Store, clock: Clock) -> None:
    dispatch = dispatcher(plan, store, clock)
    first, second, *_ = plan.jobs[0].cells
    task = Task(99, plan.jobs[0], (first, second), 1.0)
    dispatch._push(task)
    assert dispatch.next() == task
    dispatch.finish(task, Result(held=True, failures=("boom",), failed=frozenset([key_of(first)])))
    clock.now = 1.5
    left = [t for t in iter(dispatch.next, None) if t.number == 99]
    assert [t.cells for t in left] == [(second,)]


def test_what_another_run_holds_is_asked_for_again_when_a_second_has_passed(
    plan: Plan, store: Store, clock: Clock
) -> None:
    dispatch = dispatcher(plan, store, clock)
    task, other = dispatch.next(), dispatch.next()
    assert task is not None
    assert other is not None
    dispatch.finish(task, Result(held=True))
    assert dispatch.next() is None
    assert not dispatch.over
    clock.now = 1.5
    assert dispatch.next() == task


def test_a_process_that_is_sent_sigterm_is_not_held_against_its_cell_at_once(
    plan: Plan, store: Store, clock: Clock
) -> None:
    dispatch = dispatcher(plan, store, clock)
    for ends in range(4):
        assert len(dispatch.failures) == 0, ends
        task = dispatch.next()
        assert task is not None
        assert name(task) == "vanilla (seed 0)"
        dispatch.died(task, "SIGTERM")
    assert len(dispatch.failures) == 1


@pytest.mark.parametrize("why", ["time", "forwards", "asked"])
def test_nothing_begins_after_the_budget_is_spent(plan: Plan, store: Store, clock: Clock, why: str) -> None:
    budget = Budget(7.0 if why == "time" else None, 100 if why == "forwards" else None, clock)
    dispatch = dispatcher(plan, store, clock, budget=budget)
    task = dispatch.next()
    assert task is not None
    if why == "asked":
        dispatch.asked = lambda: True
    clock.now = 8.0
    budget.spend(100)
    assert dispatch.next() is None
    assert not dispatch.over, "a task is still with a worker"
    dispatch.finish(task, Result())
    assert dispatch.over
    shown = {"time": "--max-time 7 s", "forwards": "--max-forwards 100", "asked": "asked to stop"}[why]
    assert shown in dispatch.stopped


def test_the_time_left_follows_what_the_tasks_took(plan: Plan, store: Store, clock: Clock) -> None:
    dispatch = dispatcher(plan, store, clock)
    expected = 5 + 10 + (0 + 3 + 5) + (1 + 4 + 6)
    assert dispatch.seconds_left() == pytest.approx(expected)
    task = dispatch.next()
    assert task is not None
    dispatch.finish(task, Result(seconds=10.0))
    assert dispatch.seconds_left() == pytest.approx(2 * (expected - 5))


def test_short_tasks_that_took_long_say_little_of_the_long_ones(plan: Plan, store: Store, clock: Clock) -> None:
    tasks = tasks_of(plan, lambda job: 10.0, lambda job, cells: 0.01)
    dispatch = Dispatcher(plan, tasks, store, store.begin_run({}), 1, Budget(clock=clock), Heard(), clock)
    for seconds in (10.0, 5.0, 5.0, 5.0):
        task = dispatch.next()
        assert task is not None
        dispatch.finish(task, Result(seconds=seconds))
    assert 10 < dispatch.seconds_left() < 30


def test_cells_that_turn_out_to_be_another_network_s_are_measured_after_all(
    plan: Plan, store: Store, clock: Clock
) -> None:
    first = key_of(plan.jobs[0].cells[0])
    presumed = replace(plan, stored=frozenset([first]))
    order = drained(dispatcher(presumed, store, clock))
    assert order.count("vanilla under fgsm") == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("15m", 900), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400)]
)
def test_a_time_is_written_as_people_do(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-3", "soon", "5x", "1h30", "inf", "nan"])
def test_another_time_is_refused(text: str) -> None:
    with pytest.raises(BenchError, match="time"):
        parse_duration(text)
