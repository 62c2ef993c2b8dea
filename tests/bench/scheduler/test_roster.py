"""Who has what: nobody shares a cell, the dead are found out, clocks do not matter."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from support import make_cell

from bench.errors import BenchError, LeaseLostError
from bench.outcome import Outcome
from bench.spec import CellSpec
from bench.store import Store
from bench.store.process import Process, Watch
from bench.store.roster import CANCEL, LOST, STOP, Roster
from bench.store.schema import Worker


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def roster(store: Store) -> Roster:
    return Roster(store)


@pytest.fixture
def campaign(roster: Roster) -> int:
    return roster.open_campaign(roster.store.begin_run({"command": "bench run", "device": "cpu"}), 4, 1)


def join(roster: Roster, campaign: int, **elsewhere: object) -> int:
    """A worker; the fields of its process may say that it is another one."""
    number = roster.join(campaign, 1)
    if elsewhere:
        with roster.store.writing() as session:
            session.execute(sa.update(Worker).where(Worker.id == number).values(**elsewhere))
    return number


def watch(clock: Clock | None = None) -> Watch:
    return Watch(30.0, clock or Clock())


def test_two_workers_never_have_one_cell(roster: Roster, campaign: int) -> None:
    one, other = join(roster, campaign), join(roster, campaign)
    assert roster.claim(one, ["a", "b"], watch()) == {}
    assert roster.claim(other, ["b", "c"], watch()) == {"b": one}
    assert roster.claim(one, ["c"], watch()) == {"c": other}
    assert roster.claim(one, ["a", "b"], watch()) == {}, "one's own is no obstacle"
    roster.release(one, ["b"])
    assert roster.claim(other, ["b"], watch()) == {}


def test_what_an_ended_worker_had_is_free(roster: Roster, campaign: int) -> None:
    one, other = join(roster, campaign), join(roster, campaign)
    roster.claim(one, ["a"], watch())
    roster.leave(one)
    assert roster.claim(other, ["a"], watch()) == {}


@pytest.fixture
def ended() -> Process:
    """A process of this machine that lives no more."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return Process(Process.own().node, child.pid, "1")


def test_a_killed_worker_of_this_machine_is_found_out_at_once(roster: Roster, campaign: int, ended: Process) -> None:
    dead, other = join(roster, campaign, pid=ended.pid, birth=ended.birth), join(roster, campaign)
    roster.claim(dead, ["a"], watch())
    assert roster.claim(other, ["a"], watch()) == {}


def test_a_process_that_got_a_dead_one_s_number_is_not_taken_for_it(roster: Roster, campaign: int) -> None:
    dead, other = join(roster, campaign, birth="1"), join(roster, campaign)
    assert Process.own().birth not in ("", "1") or not Path("/proc/self/stat").exists()
    roster.claim(dead, ["a"], watch())
    assert roster.claim(other, ["a"], watch()) == ({} if Process.own().birth else {"a": dead})


def test_a_zombie_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = replace(Process.own(), pid=child.pid, birth=Process.of(child.pid).birth)
    assert not process.is_gone()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.is_gone() or not process.birth
    child.communicate()
    assert process.is_gone()


def test_a_worker_elsewhere_is_given_up_when_its_beat_stands_still(roster: Roster, campaign: int) -> None:
    far, other, clock = join(roster, campaign, node="elsewhere"), join(roster, campaign), Clock()
    seen = watch(clock)
    roster.claim(far, ["a"], seen)
    for clock.now in range(0, 200, 5):
        roster.beat(far, "", 0, 0, "")
        assert roster.claim(other, ["a"], seen) == {"a": far}, "it beats"
    assert until_lost(roster, other, seen, clock) == pytest.approx(30, abs=6)


def test_a_worker_of_this_machine_that_is_halted_is_given_more_time(roster: Roster, campaign: int) -> None:
    halted, other, clock = join(roster, campaign), join(roster, campaign), Clock()
    seen = watch(clock)
    roster.claim(halted, ["a"], seen)
    assert until_lost(roster, other, seen, clock) == pytest.approx(300, abs=6)


def test_wall_clocks_that_jump_or_differ_change_nothing(roster: Roster, campaign: int) -> None:
    from datetime import UTC, datetime

    far, other, clock = join(roster, campaign, node="elsewhere"), join(roster, campaign), Clock()
    seen = watch(clock)
    roster.claim(far, ["a"], seen)
    for year in (1970, 2200):
        with roster.store.writing() as session:
            session.execute(sa.update(Worker).values(seen=datetime(year, 1, 1, tzinfo=UTC)))
        assert roster.claim(other, ["a"], seen) == {"a": far}
    assert until_lost(roster, other, seen, clock) == pytest.approx(30, abs=6)


def test_time_in_which_nobody_could_look_does_not_count(roster: Roster, campaign: int) -> None:
    """A server that was away, or an observer that was halted."""
    far, other, clock = join(roster, campaign, node="elsewhere"), join(roster, campaign), Clock()
    seen = watch(clock)
    roster.claim(far, ["a"], seen)
    for clock.now in (0, 5, 65, 70, 200, 215):
        assert roster.claim(other, ["a"], seen) == {"a": far}


def test_who_was_given_up_and_wakes_is_a_worker_like_any_other(roster: Roster, campaign: int) -> None:
    far, other, clock = join(roster, campaign, node="elsewhere"), join(roster, campaign), Clock()
    seen = watch(clock)
    roster.claim(far, ["a"], seen)
    until_lost(roster, other, seen, clock)
    assert [row.id for row in roster.workers(campaign)] == [other]
    roster.beat(far, "", 0, 0, "")
    assert roster.claim(far, ["b"], seen) == {}
    assert roster.claim(other, ["b"], seen) == {"b": far}
    assert [row.id for row in roster.workers(campaign)] == [far, other]


def until_lost(roster: Roster, observer: int, seen: Watch, clock: Clock) -> float:
    """Seconds until a worker that looks every five gets the cell."""
    began = clock.now
    while roster.claim(observer, ["a"], seen):
        clock.now += 5
        assert clock.now < began + 1000
    return clock.now - began


def outcome(n: int) -> Outcome:
    import numpy as np

    bits, margin = np.ones((n, 1), bool), np.ones(n, np.float32)
    return Outcome(bits, bits, bits, margin, margin, np.zeros(n, np.uint8))


@pytest.fixture
def cell(store: Store) -> CellSpec:
    made = make_cell(n=128)
    run = store.begin_run({})
    store.record_weights(made.weights, "0" * 64, {}, [], None, run)
    store.begin_cell(made, run)
    return made


def test_a_worker_that_was_given_up_and_wakes_cannot_write(
    store: Store, roster: Roster, campaign: int, cell: CellSpec
) -> None:
    from bench.spec import key_of

    sleeper, other, clock = join(roster, campaign, node="elsewhere"), join(roster, campaign), Clock()
    seen = watch(clock)
    roster.claim(sleeper, [key_of(cell)], seen)
    while roster.claim(other, [key_of(cell)], seen):
        clock.now += 5
    with pytest.raises(LeaseLostError):
        store.add_chunks(0, {cell: outcome(128)}, 1, 1, 1.0, worker=sleeper)
    assert store.outcome(key_of(cell)) is None
    store.add_chunks(0, {cell: outcome(128)}, 1, 1, 1.0, worker=other)
    assert store.finish_cell(cell).status == "done"


def test_a_campaign_hears_what_it_is_asked_and_its_workers_too(roster: Roster, campaign: int) -> None:
    worker = join(roster, campaign)
    assert (roster.report(campaign, 0, 0, 5.0), roster.beat(worker, "x", 1, 2, "y")) == ("", "")
    for what in (STOP, CANCEL):
        roster.ask(campaign, what)
        assert (roster.report(campaign, 1, 0, 4.0), roster.beat(worker, "x", 1, 2, "y")) == (what, what)
    [row] = roster.campaigns(watch(), active=True)
    assert (row.state, row.cells, row.stored, row.done, row.seconds_left) == ("running", 4, 1, 1, 4.0)
    assert [(w.doing, w.amount, w.total, w.note) for w in row.workers] == [("x", 1, 2, "y")]


def test_an_ended_campaign_cannot_be_asked_anything_and_frees_what_its_workers_had(
    roster: Roster, campaign: int
) -> None:
    worker, other = join(roster, campaign), join(roster, roster.open_campaign(1, 1, 0))
    roster.claim(worker, ["a"], watch())
    roster.close_campaign(campaign, "done")
    with pytest.raises(BenchError, match="has ended already"):
        roster.ask(campaign, CANCEL)
    with pytest.raises(BenchError, match="is not there"):
        roster.ask(99, CANCEL)
    assert roster.claim(other, ["a"], watch()) == {}


def test_a_campaign_whose_process_is_gone_is_lost(roster: Roster, campaign: int, ended: Process) -> None:
    with roster.store.writing() as session:
        session.execute(sa.text("UPDATE campaigns SET pid = :pid, birth = '1'"), {"pid": ended.pid})
    assert [row.state for row in roster.campaigns(watch(), active=True)] == [LOST]
