"""What an attack on events really did, counted from the original and the edited recording alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attacks.events.threat import Bounds, EventThreat
from events import Recording

RECOUNT_VERSION = 1
"""Part of the key of every result on edited events; raise it when the same two recordings may be judged otherwise."""

Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Recount:
    """The edits that lead from one recording to another.

    Attributes:
        events: of the original.
        added, removed, moved: the fewest edits that explain the difference and keep the rules, if any do.
        problem: the first rule that is broken, for people; empty where none is.
    """

    events: int
    added: int
    removed: int
    moved: int
    problem: str = ""


def recount(original: Recording, edited: Recording, threat: EventThreat) -> Recount:
    """Count the edits between two recordings, and say which rule they break.

    Nothing is believed that an attack says of itself, and no code of the attacks is used. Frames by number depend on
    the order of events within a microsecond, so order counts:

    - kept are, in each microsecond, the events of a longest common subsequence of (x, y, polarity);
    - the other original events were removed and the other edited ones added;
    - a removal and an addition of one pixel and polarity at most `max_shift` apart are one move; as many are taken as
      moves as there can be (a maximum matching).

    The last step may break a bound where other counts of the same difference do not: an event may have moved to where
    another one moved away from, which the first step calls kept, and two edits within `max_shift` may be two where
    moves are bounded. So any count by which no bound is broken will do.

    Args:
        original, edited: the recording and what the attacker made of it.
        threat: the rules.
    """
    known, found = _codes(original), _codes(edited)
    if problem := _impossible(original, edited):
        return Recount(len(original), len(edited), len(original), 0, problem)
    kept, gone = _kept(original.t, known, edited.t, found)
    gone_code, new_code = known[~kept], found[gone]
    counts, problem = _Lines(
        _by_line(gone_code, original.t[~kept]), _by_line(new_code, edited.t[gone]), threat.max_shift
    ).counted(threat.bounds(len(original)), lambda: _by_line(known[kept], original.t[kept]))
    problem = problem or _too_near(edited, gone, threat.min_gap)
    return Recount(len(original), counts.added, counts.removed, counts.moved, problem)


@dataclass(frozen=True, eq=False)
class Changes:
    """Which events differ between an original of n events and what was made of it, of m.

    Attributes:
        removed, added: of the original, bool [n], and of the edited recording, bool [m].
        moved: numbers of the events that were moved, in the original and in the edited recording, int64 [k, 2].
    """

    removed: NDArray[np.bool_]
    added: NDArray[np.bool_]
    moved: Whole


def changes(original: Recording, edited: Recording, max_shift: int) -> Changes:
    """The events that `recount` counts first, whatever the bounds: for pictures.

    Args:
        original, edited: of one sensor, in the order of their times.
        max_shift: microseconds within which a removal and an addition of one pixel and polarity are a move.
    """
    known, found = _codes(original), _codes(edited)
    kept, new = _kept(original.t, known, edited.t, found)
    gone = ~kept
    pairs: list[tuple[int, int]] = []
    for line in np.intersect1d(known[gone], found[new]).tolist() if max_shift else []:
        (was,), (now,) = np.nonzero(gone & (known == line)), np.nonzero(new & (found == line))
        matched = _pairs(original.t[was].tolist(), edited.t[now].tolist(), max_shift)
        pairs += [(int(was[i]), int(now[j])) for i, j in matched]
    moved = np.array(pairs, np.int64).reshape(-1, 2)
    gone[moved[:, 0]], new[moved[:, 1]] = False, False
    return Changes(gone, new, moved)


def _codes(recording: Recording) -> Whole:
    """Pixel and polarity of each event as one number; the polarity is its last bit."""
    pixel = recording.y.astype(np.int64) * recording.sensor.width + recording.x
    return pixel * 2 + recording.p


def _impossible(original: Recording, edited: Recording) -> str:
    sensor = original.sensor
    if edited.sensor != sensor:
        return f"the sensor became {edited.sensor}, and was {sensor}"
    inside = (edited.x >= 0) & (edited.x < sensor.width) & (edited.y >= 0) & (edited.y < sensor.height)
    if not bool((inside & (edited.p <= 1)).all()):
        return "an event is off the sensor"
    if bool((np.diff(edited.t) < 0).any()):
        return "the events are not in the order of their times"
    last = int(original.t[-1]) if len(original) else -1
    if len(edited) and not (edited.t[0] >= 0 and edited.t[-1] <= last):
        return f"an event is outside of the recording's time, 0 to {last} us"
    return ""


def _kept(t: Whole, code: Whole, t_new: Whole, code_new: Whole) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which original events are kept, [n], and which edited events are new, [m]."""
    kept, new = np.ones(len(t), np.bool_), np.zeros(len(t_new), np.bool_)
    times = np.union1d(t, t_new)
    spans = [
        (*np.searchsorted(one, times, "left").tolist(), *np.searchsorted(one, times, "right").tolist())
        for one in (t, t_new)
    ]
    count = len(times)
    old, old_ids, fresh, fresh_ids = spans[0], code.tolist(), spans[1], code_new.tolist()
    for at in range(count):
        a, b = old[at], old[count + at]
        c, d = fresh[at], fresh[count + at]
        was, now = old_ids[a:b], fresh_ids[c:d]
        if was != now:
            same = _common(was, now)
            kept[a:b], new[c:d] = False, True
            for i, j in same:
                kept[a + i], new[c + j] = True, False
    return kept, new


def _common(was: Sequence[int], now: Sequence[int]) -> list[tuple[int, int]]:
    """A longest common subsequence, as pairs of places."""
    if not was or not now:
        return []
    first = 0
    while first < min(len(was), len(now)) and was[first] == now[first]:
        first += 1
    last = 0
    while last < min(len(was), len(now)) - first and was[-1 - last] == now[-1 - last]:
        last += 1
    rows, columns = len(was) - first - last, len(now) - first - last
    longest = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in reversed(range(rows)):
        for j in reversed(range(columns)):
            same = was[first + i] == now[first + j]
            longest[i][j] = longest[i + 1][j + 1] + 1 if same else max(longest[i + 1][j], longest[i][j + 1])
    pairs, i, j = [(k, k) for k in range(first)], 0, 0
    while i < rows and j < columns:
        if was[first + i] == now[first + j]:
            pairs.append((first + i, first + j))
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs + [(len(was) - k, len(now) - k) for k in range(last, 0, -1)]


_ByLine = dict[int, list[int]]
"""Times, in order, by pixel and polarity."""


def _by_line(code: Whole, t: Whole) -> _ByLine:
    lines: _ByLine = {}
    for line, time in zip(code.tolist(), t.tolist(), strict=True):
        lines.setdefault(line, []).append(time)
    return lines


class _Count(NamedTuple):
    """In the order of `Bounds`."""

    edits: int
    added: int
    removed: int
    moved: int
    on: int
    off: int


class _Lines:
    """Removals and additions by pixel and polarity, of which some are moves.

    Args:
        gone, new: times of what was removed and added.
        reach: how far an event may be moved.
    """

    def __init__(self, gone: _ByLine, new: _ByLine, reach: int) -> None:
        self.gone, self.new, self.reach = gone, new, reach
        self.removed, self.added = (
            tuple(sum(len(times) for line, times in side.items() if line % 2 == p) for p in (0, 1))
            for side in (gone, new)
        )

    def counted(self, bounds: Bounds, kept: Callable[[], _ByLine]) -> tuple[_Count, str]:
        """The counts to report, and the first bound that is broken.

        Args:
            bounds: how many of each kind there may be.
            kept: times of what is in both recordings; asked for only where the plain count breaks a bound.
        """
        both = [line for line in self.gone if line in self.new] if self.reach else []
        moves = [0, 0]
        for line in both:
            moves[line % 2] += _matching(self.gone[line], self.new[line], self.reach)
        plain = self._at(moves, moves)
        broken = _broken(plain, bounds)
        if not broken or not both:
            return plain, broken
        still = kept()
        prices: tuple[list[int], list[int]] = ([], [])
        for line in both:
            prices[line % 2].extend(_prices(self.gone[line], self.new[line], still.get(line, []), self.reach))
        totals = [[0, *accumulate(sorted(found))] for found in prices]
        best: _Count | None = None
        for off, moved_off in enumerate(totals[0]):
            for on, moved_on in enumerate(totals[1]):
                found = self._at((off, on), (moved_off, moved_on))
                if not _broken(found, bounds) and (best is None or found.edits < best.edits):
                    best = found
        return best or plain, "" if best else broken

    def _at(self, pairs: Sequence[int], moved: Sequence[int]) -> _Count:
        """Edits in all, added, removed, moved, and edits of ON and OFF events.

        Args:
            pairs: how many removals and additions are paired, by polarity.
            moved: how many moves that makes.
        """
        by = [self.removed[p] + self.added[p] - 2 * pairs[p] + moved[p] for p in (0, 1)]
        added, removed = sum(self.added) - sum(pairs), sum(self.removed) - sum(pairs)
        return _Count(sum(by), added, removed, sum(moved), by[1], by[0])


def _broken(found: Sequence[int], bounds: Bounds) -> str:
    names = ("edits", "added", "removed", "moved", "ON events edited", "OFF events edited")
    for name, count, most in zip(names, found, bounds, strict=True):
        if count > most:
            return f"{count} {name}, and {most} allowed"
    return ""


def _matching(gone: Sequence[int], new: Sequence[int], reach: int) -> int:
    """The most pairs of two ordered lists that lie at most `reach` apart."""
    return len(_pairs(gone, new, reach))


def _pairs(gone: Sequence[int], new: Sequence[int], reach: int) -> list[tuple[int, int]]:
    """Places of such pairs."""
    i = j = 0
    pairs = []
    while i < len(gone) and j < len(new):
        if abs(gone[i] - new[j]) <= reach:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif gone[i] < new[j]:
            i += 1
        else:
            j += 1
    return pairs


def _prices(gone: Sequence[int], new: Sequence[int], kept: Sequence[int], reach: int) -> list[int]:
    """How many moves each further pair of a removal and an addition takes, the cheapest first.

    One, where they are in reach; two where one kept event lies between them, which then moved as well; and so on. This
    is a matching of least cost, grown by shortest augmenting paths: keeping costs nothing and each move costs one.
    """
    old, fresh = [*kept, *gone], [*kept, *new]
    partner = {j: j for j in range(len(kept))}
    free = set(range(len(kept), len(old)))
    prices: list[int] = []

    def cost(i: int, j: int) -> int:
        return 0 if i == j < len(kept) else 1

    while True:
        # Bellman-Ford over the original events: taking another's place makes that one move on.
        price = dict.fromkeys(free, 0)
        came: dict[int, int] = {}
        reached: dict[int, tuple[int, int]] = {}
        changed = True
        while changed:
            changed = False
            for i, so_far in list(price.items()):
                for j, time in enumerate(fresh):
                    if abs(old[i] - time) > reach or partner.get(j) == i:
                        continue
                    total = so_far + cost(i, j)
                    if j in reached and reached[j][0] <= total:
                        continue
                    reached[j], changed = (total, i), True
                    holder = partner.get(j)
                    if holder is not None:
                        price[holder], came[holder] = total - cost(holder, j), j
        ends = [(reached[j][0], j) for j in reached if j not in partner]
        if not ends:
            return prices
        paid, j = min(ends)
        prices.append(paid)
        while True:
            i = reached[j][1]
            partner[j], before = i, came.get(i)
            if i in free:
                free.remove(i)
                break
            assert before is not None
            j = before


def _too_near(edited: Recording, new: NDArray[np.bool_], gap: int) -> str:
    if gap == 0 or not bool(new.any()):
        return ""
    pixel = edited.y.astype(np.int64) * edited.sensor.width + edited.x
    order = np.lexsort((edited.t, pixel))
    near = (np.diff(pixel[order]) == 0) & (np.diff(edited.t[order]) < gap)
    fresh = new[order]
    if not bool((near & (fresh[1:] | fresh[:-1])).any()):
        return ""
    return f"a new event is less than {gap} us from another of its pixel"
