"""The checker of edited recordings, against edits that are known and against a search through all explanations."""

import itertools
import time
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attacks.events.draft import REMOVED, SHIFTED, Draft
from attacks.events.edits import Edits
from attacks.events.ledger import Ledger
from attacks.events.sketch import Sketch, Wish
from attacks.events.threat import EventThreat
from bench import recount as checker
from bench.recount import recount
from events import Recording, Sensor

SENSOR = Sensor(2, 3)
ANY = Fraction(10)
Event = tuple[int, int, int, int]


def made(events: list[Event], sensor: Sensor = SENSOR) -> Recording:
    """Of (t, x, y, p), in the order given within a microsecond."""
    t, x, y, p = np.array(events, np.int64).reshape(-1, 4).T
    return Recording.in_order(x, y, t, p, sensor)


# One or two pixels: what is edited meets what is kept. In few microseconds events change places.
tiny = st.sampled_from([6, 1]).flatmap(
    lambda last: st.lists(st.tuples(st.integers(0, last), st.just(0), st.integers(0, 1), st.integers(0, 1)), max_size=6)
)


def explained(original: Recording, edited: Recording, reach: int) -> set[tuple[tuple[int, ...], frozenset[int]]]:
    """Counts (edits, added, removed, moved, on, off) and new events of every way to pair the events, by trying all.

    Pairs of equal events that are kept must be in order; every other pair of one line is a move.
    """
    old = list(zip(original.t.tolist(), original.x.tolist(), original.y.tolist(), original.p.tolist(), strict=True))
    new = list(zip(edited.t.tolist(), edited.x.tolist(), edited.y.tolist(), edited.p.tolist(), strict=True))

    @cache
    def ways(i: int, used: frozenset[int], kept: frozenset[int]) -> frozenset[tuple[tuple[int, ...], frozenset[int]]]:
        if i == len(old):
            left = [new[j][3] for j in range(len(new)) if j not in used]
            fresh = frozenset(range(len(new))) - kept
            return frozenset({((len(left), len(left), 0, 0, sum(left), len(left) - sum(left)), fresh)})
        p = old[i][3]
        found = {
            ((e + 1, a, r + 1, m, on + p, off + 1 - p), fresh)
            for (e, a, r, m, on, off), fresh in ways(i + 1, used, kept)
        }
        for j in set(range(len(new))) - used:
            if new[j] == old[i] and all(k < j for k in kept):
                found |= ways(i + 1, used | {j}, kept | {j})
            if new[j][1:] == old[i][1:] and 0 < reach >= abs(new[j][0] - old[i][0]):
                rest = ways(i + 1, used | {j}, kept)
                found |= {((e + 1, a, r, m + 1, on + p, off + 1 - p), fresh) for (e, a, r, m, on, off), fresh in rest}
        return frozenset(found)

    return set(ways(0, frozenset(), frozenset()))


def apart(edited: Recording, new: frozenset[int], gap: int) -> bool:
    """Whether each new event keeps the gap from every other event of its pixel."""
    x, y, t = edited.x.tolist(), edited.y.tolist(), edited.t.tolist()
    return all(
        (x[i], y[i]) != (x[j], y[j]) or abs(t[i] - t[j]) >= gap for i in new for j in range(len(edited)) if i != j
    )


bounds = st.none() | st.integers(0, 4)


@settings(max_examples=500, deadline=None)
@given(
    before=tiny,
    after=tiny,
    reach=st.integers(0, 3),
    gap=st.integers(0, 3),
    most=st.tuples(st.integers(0, 8), *[bounds] * 5),
)
def test_the_verdict_is_that_of_a_search_through_all_explanations(
    before: list[Event], after: list[Event], reach: int, gap: int, most: tuple[int | None, ...]
) -> None:
    original, edited = made(before), made(after)
    n = len(original)
    assume(n and (not len(edited) or edited.t[-1] <= original.t[-1]) and (reach or not most[3]))
    eps, added, removed, shifted, on, off = (None if m is None else min(Fraction(m, n), ANY) for m in most)
    assert eps is not None
    threat = EventThreat(eps, added, removed, shifted, on, off, max_shift=reach, min_gap=gap)
    limits = threat.bounds(n)
    ways = explained(original, edited, reach)
    legal = {
        way
        for way, new in ways
        if all(count <= limit for count, limit in zip(way, limits, strict=True)) and apart(edited, new, gap)
    }
    found = recount(original, edited, threat)
    count = (found.added + found.removed + found.moved, found.added, found.removed, found.moved)
    assert bool(found.problem) == (not legal)
    assert "tried" not in found.problem
    if legal:
        assert count in {way[:4] for way in legal}
    if not _reordered(original, edited):
        assert count[0] == min(way[0] for way in legal or {way for way, _ in ways})


def _reordered(original: Recording, edited: Recording) -> bool:
    """Whether events that both have changed places within a microsecond, so that which of them is kept is a choice."""
    for t in set(original.t.tolist()):
        was, now = (
            list(zip(*(getattr(r, name)[r.t == t].tolist() for name in ("x", "y", "p")), strict=True))
            for r in (original, edited)
        )
        both = set(was) & set(now)
        if len(set(was)) < len(was) or len(set(now)) < len(now):
            if both:
                return True
        elif [e for e in was if e in both] != [e for e in now if e in both]:
            return True
    return False


@st.composite
def edited_recordings(draw: st.DrawFn) -> tuple[Recording, Edits, int]:
    """A recording, edits of it, and how far they move events."""
    n = draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    original = made(
        [tuple(random.integers(0, high) for high in (60, 3, 2, 2)) for _ in range(n)]  # type: ignore[misc]
    )
    reach, last = int(random.integers(0, 8)), int(original.t[-1])
    removed = random.random(n) < random.random()
    moves = (random.random(n) < random.random()) & (reach > 0)
    t = np.where(moves, np.clip(original.t + random.integers(-reach, reach + 1, n), 0, last), original.t)
    k = int(random.integers(0, 6))
    new = [random.integers(0, high, k) for high in (3, 2, 2, last + 1)]
    return original, Edits(removed, t, *new), reach


@settings(max_examples=150, deadline=None)
@given(case=edited_recordings())
def test_what_edits_claim_is_enough_for_them(case: tuple[Recording, Edits, int]) -> None:
    """A budget of exactly the edits made is never exceeded, and no more edits are counted than were made."""
    original, edits, reach = case
    n, kept = len(original), ~edits.removed
    moved = int((edits.t != original.t)[kept].sum())
    made = len(edits.at) + int(edits.removed.sum()) + moved
    assume(made <= 10 * n)
    found = recount(original, edits.apply(original), EventThreat(Fraction(made, n), max_shift=reach, min_gap=0))
    assert not found.problem
    assert found.events == n
    assert found.added + found.removed + found.moved <= made


PLAIN = [(0, 0, 0, 1), (10, 1, 0, 0), (20, 2, 0, 1), (30, 0, 1, 0), (40, 1, 1, 1)]


@pytest.mark.parametrize(
    ("after", "rules", "count", "problem"),
    [
        (PLAIN, {"eps": 0}, (0, 0, 0), ""),
        (PLAIN[1:], {"eps": "1/5"}, (0, 1, 0), ""),
        (PLAIN[1:], {"eps": 0}, (0, 1, 0), "1 edits, and 0 allowed"),
        (PLAIN[1:], {"eps": 1, "removed": 0}, (0, 1, 0), "1 removed, and 0 allowed"),
        (PLAIN[1:], {"eps": 1, "on": 0}, (0, 1, 0), "1 ON events edited, and 0 allowed"),
        (PLAIN[1:], {"eps": 1, "off": 0}, (0, 1, 0), ""),
        ([*PLAIN, (15, 0, 0, 0)], {"eps": 1}, (1, 0, 0), ""),
        ([*PLAIN, (15, 0, 0, 0)], {"eps": 1, "off": 0}, (1, 0, 0), "1 OFF events edited, and 0 allowed"),
        ([*PLAIN, (15, 0, 0, 0)], {"eps": 1, "added": 0}, (1, 0, 0), "1 added, and 0 allowed"),
        ([*PLAIN, (10, 1, 0, 1)], {"eps": 1}, (1, 0, 0), "less than 1 us"),
        ([*PLAIN, (10, 1, 0, 1)], {"eps": 1, "min_gap": 0}, (1, 0, 0), ""),
        ([*PLAIN, (19, 1, 0, 1)], {"eps": 1, "min_gap": 10}, (1, 0, 0), "less than 10 us"),
        ([*PLAIN, (20, 1, 0, 1)], {"eps": 1, "min_gap": 10}, (1, 0, 0), ""),
        ([*PLAIN, (41, 1, 0, 1)], {"eps": 1}, (6, 5, 0), "outside of the recording's time"),
        ([(3, 0, 0, 1), *PLAIN[1:]], {"eps": 1}, (1, 1, 0), ""),
        ([(3, 0, 0, 1), *PLAIN[1:]], {"eps": "1/5", "max_shift": 3}, (0, 0, 1), ""),
        ([(3, 0, 0, 1), *PLAIN[1:]], {"eps": "1/5", "max_shift": 2}, (1, 1, 0), "2 edits, and 1 allowed"),
        ([(3, 0, 0, 1), *PLAIN[1:]], {"eps": 1, "max_shift": 9, "shifted": 0}, (1, 1, 0), ""),
        ([(3, 0, 0, 1), *PLAIN[1:]], {"eps": "1/5", "max_shift": 9, "shifted": 0}, (0, 0, 1), "1 moved, and 0"),
        ([(3, 0, 0, 0), *PLAIN[1:]], {"eps": 1, "max_shift": 9}, (1, 1, 0), ""),
    ],
)
def test_each_rule(after: list[Event], rules: dict[str, str | int], count: tuple[int, ...], problem: str) -> None:
    times = ("max_shift", "min_gap")
    threat = EventThreat(**{k: int(v) if k in times else Fraction(v) for k, v in rules.items()})  # type: ignore[arg-type]
    found = recount(made(PLAIN), made(after), threat)
    assert (found.added, found.removed, found.moved) == count
    assert problem in found.problem
    assert bool(problem) == bool(found.problem)


def test_an_order_that_changed_within_a_microsecond_is_an_edit() -> None:
    """Frames by number are cut between any two events, so who comes first in a microsecond can decide."""
    before, after = made([(5, 0, 0, 1), (5, 1, 0, 1), (9, 2, 0, 1)]), made([(5, 1, 0, 1), (5, 0, 0, 1), (9, 2, 0, 1)])
    assert recount(before, after, EventThreat(Fraction(0))).problem == "2 edits, and 0 allowed"
    assert recount(before, after, EventThreat(Fraction(1, 3), max_shift=1)).problem == ""


def test_events_that_move_into_each_others_places_were_moved() -> None:
    """0 to 5, 5 to 10: what is at 5 looks kept, and 0 and 10 too far apart; without additions it is still legal."""
    before, after = (
        made([(0, 0, 0, 1), (5, 0, 0, 1), (20, 2, 0, 0)]),
        made([(5, 0, 0, 1), (10, 0, 0, 1), (20, 2, 0, 0)]),
    )
    free = recount(before, after, EventThreat(Fraction(1), max_shift=5))
    strict = recount(before, after, EventThreat(Fraction(1), max_shift=5, added=Fraction(0)))
    assert (free.added, free.removed, free.moved) == (1, 1, 0)
    assert (strict.added, strict.removed, strict.moved, strict.problem) == (0, 0, 2, "")


def test_an_empty_recording_may_only_stay_empty() -> None:
    empty = Recording.empty(SENSOR)
    assert recount(empty, empty, EventThreat(ANY)).problem == ""
    assert recount(empty, made([(0, 0, 0, 1)]), EventThreat(ANY)).problem


def test_another_sensor_is_no_edit() -> None:
    assert "sensor" in recount(made(PLAIN), made(PLAIN, Sensor(3, 3)), EventThreat(ANY)).problem


def test_a_recording_that_was_tampered_with_is_seen() -> None:
    for name, value in (("x", 3), ("p", 2), ("t", 99), ("y", -1)):
        broken = made(PLAIN)
        array = getattr(broken, name).copy()
        array[1] = value
        object.__setattr__(broken, name, array)
        assert recount(made(PLAIN), broken, EventThreat(ANY)).problem


def test_every_pair_of_tiny_streams_within_one_pixel_agrees_with_the_search() -> None:
    """All recordings of up to three events of one line, where chains of moves are dense."""
    streams = [made([(t, 0, 0, 1) for t in times]) for k in range(4) for times in itertools.combinations(range(5), k)]
    for original, edited in itertools.product(streams, streams):
        if not len(original) or (len(edited) and edited.t[-1] > original.t[-1]):
            continue
        ways = explained(original, edited, 1)
        for added, moved in itertools.product(range(3), range(4)):
            n = len(original)
            threat = EventThreat(Fraction(6, n), Fraction(added, n), None, Fraction(moved, n), max_shift=1, min_gap=0)
            legal = any(way[1] <= added and way[3] <= moved and way[0] <= 6 for way, _ in ways)
            assert bool(recount(original, edited, threat).problem) == (not legal)


def test_a_polarity_of_minus_one_is_not_the_neighbours_event() -> None:
    """(x + 1, -1) has the number of (x, 1)."""
    broken = made([(0, 1, 0, 1), *PLAIN[1:]])
    p = broken.p.astype(np.int64)
    p[0] = -1
    object.__setattr__(broken, "p", p)
    assert "polarity" in recount(made(PLAIN), broken, EventThreat(Fraction(1))).problem


def test_bounds_and_gap_are_kept_by_one_explanation() -> None:
    """Without additions the ON event at 5 was moved there, one microsecond from another event."""
    before = made([(0, 0, 0, 1), (4, 0, 0, 0), (5, 0, 0, 1), (20, 2, 1, 1)])
    after = made([(4, 0, 0, 0), (5, 0, 0, 1), (10, 0, 0, 1), (20, 2, 1, 1)])
    nothing = {"added": Fraction(0), "removed": Fraction(0)}
    assert recount(before, after, EventThreat(Fraction(1), max_shift=5, min_gap=3, **nothing)).problem
    assert not recount(before, after, EventThreat(Fraction(1), max_shift=5, min_gap=1, **nothing)).problem
    assert not recount(before, after, EventThreat(Fraction(1), max_shift=5, min_gap=3)).problem


@pytest.mark.parametrize("swapped", [[(5, 0, 0, 1), (5, 1, 1, 0)], [(5, 1, 1, 0), (5, 0, 0, 1)]])
@pytest.mark.parametrize("rule", [{"on": Fraction(0)}, {"off": Fraction(0)}])
@pytest.mark.parametrize("near", [(4, 0, 0, 1), (4, 1, 1, 0)])
def test_either_of_two_events_that_changed_places_may_be_the_new_one(
    swapped: list[Event], rule: dict[str, Fraction], near: Event
) -> None:
    before, after = made([near, *swapped, (10, 2, 0, 1)]), made([near, *swapped[::-1], (10, 2, 0, 1)])
    assert not recount(before, after, EventThreat(Fraction(1, 2), min_gap=0, **rule)).problem
    assert not recount(before, after, EventThreat(Fraction(1, 2), min_gap=3)).problem
    is_new = 1 if "off" in rule else 0
    assert bool(recount(before, after, EventThreat(Fraction(1, 2), min_gap=3, **rule)).problem) == (near[3] == is_new)


@pytest.mark.parametrize("order", [[(0, 5), (2, 10)], [(2, 10), (0, 5)]])
def test_a_ledger_and_a_sketch_move_nothing_into_a_place_that_another_leaves(order: list[tuple[int, int]]) -> None:
    original = made([(0, 0, 0, 1), (5, 1, 1, 0), (5, 0, 0, 1), (10, 2, 1, 1)])
    threat = EventThreat(Fraction(1), max_shift=10, min_gap=0)
    ledger, sketch = Ledger(original, threat), Sketch(Draft.of(original), threat)
    assert [ledger.move(number, t) for number, t in order] == [True, False]
    wishes = [Wish(SHIFTED, 1, number, 0, 0, t=t, low=t, high=t) for number, t in order]
    assert [sketch.take(wish) for wish in wishes] == [True, False]
    moved = Sketch(sketch.draft(), threat)
    if order[0][0] == 0:
        assert not ledger.remove(2)
        assert not sketch.take(Wish(REMOVED, 1, 2, 0, 0))
        assert not moved.take(Wish(REMOVED, 1, 2, 0, 0))
    assert not moved.take(wishes[1])


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), off=st.sampled_from([None, Fraction(0)]))
def test_what_a_ledger_lets_pass_is_legal_without_a_gap_too(seed: int, off: Fraction | None) -> None:
    random = np.random.default_rng(seed)
    last, n = int(random.integers(1, 6)), int(random.integers(1, 12))
    original = made([(int(random.integers(0, last + 1)), 0, *random.integers(0, 2, 2).tolist()) for _ in range(n)])
    threat = EventThreat(Fraction(1, 2), off=off, max_shift=int(random.integers(1, 4)), min_gap=0)
    ledger = Ledger(original, threat)
    for _ in range(30):
        number, t = int(random.integers(0, n)), int(random.integers(0, last + 1))
        kind = random.integers(0, 4)
        _ = (
            ledger.remove(number)
            if kind == 0
            else ledger.add(ledger.event(number)._replace(t=t))
            if kind == 1
            else ledger.move(number, t)
        )
    assert not recount(original, ledger.edits().apply(original), threat).problem


def test_many_events_of_one_microsecond_and_of_one_pixel_are_compared_in_seconds() -> None:
    """A table of all pairs would take minutes for either."""
    started, sensor, random = time.process_time(), Sensor(34, 34), np.random.default_rng(0)
    together = made([(7, *random.integers(0, 34, 2), random.integers(0, 2)) for _ in range(20_000)], sensor)
    few = np.ones(20_000, np.bool_)
    few[[3, -4]] = False
    left = Recording(together.x[few], together.y[few], together.t[few], together.p[few], sensor)
    found = recount(together, left, EventThreat(Fraction(1, 20)))
    assert (found.added, found.removed, found.problem) == (0, 2, "")
    line = made([(10 * k, 0, 0, 1) for k in range(3000)])
    shifted = made([(10 * k, 0, 0, 1) for k in range(10, 3000)] + [(29_985 - 10 * k, 0, 0, 1) for k in range(10)])
    assert recount(line, shifted, EventThreat(Fraction(1), added=Fraction(0), max_shift=15)).problem
    assert time.process_time() - started < 20


def test_a_search_that_was_cut_says_so_and_accepts_nothing_illegal(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [((t, 0, 0, 1), (t, 1, 0, 0)) for t in range(20)]
    before, after = made([e for pair in pairs for e in pair]), made([e for pair in pairs for e in pair[::-1]])
    few = EventThreat(Fraction(1), on=Fraction(1, 4), off=Fraction(1, 4), min_gap=0)
    assert "too many to try all" in recount(before, after, few).problem
    assert not recount(before, after, EventThreat(Fraction(1), on=Fraction(0), min_gap=0)).problem
    line, moved = (
        made([*[(t, 0, 0, 1) for t in times], (40, 1, 0, 1)]) for times in (range(0, 30, 5), [*range(5, 30, 5), 29])
    )
    chained = EventThreat(Fraction(1), added=Fraction(0), max_shift=5)
    assert not recount(line, moved, chained).problem
    monkeypatch.setattr(checker, "WORK", 3)
    assert "too many to try all" in recount(line, moved, chained).problem
    monkeypatch.setattr(checker, "ALIKE", 0)
    found = recount(before, after, few)
    assert "too many to try all" in found.problem
    assert not recount(before, after, EventThreat(Fraction(2), min_gap=0)).problem
