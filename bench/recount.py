"""What an attack on events really did, counted from the original and the edited recording alone."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attacks.events.threat import Bounds, EventThreat
from events import Recording

RECOUNT_VERSION = 1
"""Part of the key of every result on edited events; raise it when the same two recordings may be judged otherwise."""

Whole = NDArray[np.int64]

ALIKE = 5_000_000
"""Pairs of equal events to compare, ten seconds; of a microsecond beyond, only the ends that agree count as kept."""

WAYS = 256
"""Combinations of explanations that are tried before a recording is judged to break a rule."""

WORK = 10_000_000
"""Steps spent on explanations that are not the plain one; some seconds."""


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

    That may break a rule where another explanation of the same difference does not: an event may have moved to where
    another one moved away from, which the first step calls kept; where events changed places within a microsecond, it
    is a choice which of them is kept; and two edits within `max_shift` may be two where moves are bounded. So any one
    explanation that keeps all bounds and `min_gap` together will do, and its counts are reported. They are the fewest
    unless events changed places within a microsecond. The search has an end (`ALIKE`, `WAYS`, `WORK`); where it came
    to that and found nothing, `problem` says so, and the recording may be legal. What it accepts always is.

    Args:
        original, edited: the recording and what the attacker made of it.
        threat: the rules.
    """
    if problem := _impossible(original, edited):
        return Recount(len(original), len(edited), len(original), 0, problem)
    known, found = _codes(original), _codes(edited)
    diff = _diff(original.t, known, edited.t, found)
    crowded, bounds = _crowded(edited, threat.min_gap), threat.bounds(len(original))
    work = _Work(WORK)
    others = _others(diff, known, found, crowded, work)
    # No explanation keeps more than the first one, and a move stands for two differences at most.
    if diff.is_whole and int((~diff.kept).sum() + diff.new.sum()) > bounds.edits * (2 if threat.max_shift else 1):
        others = iter(())
    first: tuple[_Count, str] | None = None
    for kept, new in chain([(diff.kept, diff.new)], others):
        near = new & crowded
        lines = _Lines(_by_line(known[~kept], original.t[~kept]), _by_line(found[new], edited.t[new]), threat.max_shift)
        if near.any():
            counts, problem = lines.plain(bounds)
            problem = problem or f"a new event is less than {threat.min_gap} us from another of its pixel"
        else:
            # A crowded event may not be new, so it cannot have taken another's place either.
            still = ~new & ~crowded
            counts, problem = lines.counted(bounds, _chosen(found, edited.t, still), work)
        if not problem:
            return Recount(len(original), counts.added, counts.removed, counts.moved)
        first = first or (counts, problem)
    assert first is not None
    counts, problem = first
    if work.is_cut or not diff.is_whole:
        problem += " (in the explanations tried; there are too many to try all)"
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
    diff = _diff(original.t, known, edited.t, found)
    gone, new = ~diff.kept, diff.new
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
    if not bool(inside.all()):
        return "an event is off the sensor"
    if not bool(((edited.p == 0) | (edited.p == 1)).all()):
        return "an event's polarity is neither 0 nor 1"
    if bool((np.diff(edited.t) < 0).any()):
        return "the events are not in the order of their times"
    last = int(original.t[-1]) if len(original) else -1
    if len(edited) and not (edited.t[0] >= 0 and edited.t[-1] <= last):
        return f"an event is outside of the recording's time, 0 to {last} us"
    return ""


class _Work:
    """What may still be spent on other explanations, and whether it was too little."""

    def __init__(self, left: int) -> None:
        self.left, self.is_cut = left, False

    def spend(self, steps: int) -> bool:
        """Whether there was enough."""
        self.left -= steps
        self.is_cut |= self.left < 0
        return self.left >= 0

    def affords(self, steps: int) -> bool:
        """The same for steps that are not taken, nor paid, if they are too many."""
        if steps > self.left // 2:
            self.is_cut = True
            return False
        return self.spend(steps)


class _Diff(NamedTuple):
    """What two lists of events have in common.

    Attributes:
        kept, new: original events that are kept, [n], and edited events that are new, [m].
        swapped: spans of the microseconds in which an event that is gone and a new one are equal, as first and last + 1
            in the original and in the edited list: there, another choice of what is kept is possible.
        is_whole: whether as much is kept as can be.
    """

    kept: NDArray[np.bool_]
    new: NDArray[np.bool_]
    swapped: list[tuple[int, int, int, int]]
    is_whole: bool


def _diff(t: Whole, code: Whole, t_new: Whole, code_new: Whole) -> _Diff:
    kept, new = np.ones(len(t), np.bool_), np.zeros(len(t_new), np.bool_)
    swapped, is_whole, alike = [], True, ALIKE
    times = np.union1d(t, t_new)
    spans = [np.searchsorted(one, times, side).tolist() for one in (t, t_new) for side in ("left", "right")]
    before, after = code.tolist(), code_new.tolist()
    for a, b, c, d in zip(*spans, strict=True):
        was, now = before[a:b], after[c:d]
        if was == now:
            continue
        same, pairs = _common(was, now, alike)
        alike -= pairs
        is_whole &= alike >= 0
        kept[a:b], new[c:d] = False, True
        for i, j in same:
            kept[a + i], new[c + j] = True, False
        if np.isin(code[a:b][~kept[a:b]], code_new[c:d][new[c:d]]).any():
            swapped.append((a, b, c, d))
    return _Diff(kept, new, swapped, is_whole)


def _ends(was: Sequence[int], now: Sequence[int]) -> tuple[int, int]:
    """How many first and how many last ones are equal; to keep these is never worse than anything else."""
    first, most = 0, min(len(was), len(now))
    while first < most and was[first] == now[first]:
        first += 1
    last = 0
    while last < most - first and was[-1 - last] == now[-1 - last]:
        last += 1
    return first, last


def _edges(rows: int, columns: int, first: int, last: int) -> list[tuple[int, int]]:
    return [(k, k) for k in range(first)] + [(rows - k, columns - k) for k in range(last, 0, -1)]


_Node = tuple[int, int, "_Node | None"]


def _common(was: Sequence[int], now: Sequence[int], most: int) -> tuple[list[tuple[int, int]], int]:
    """A longest common subsequence, as pairs of places, and how many pairs of equal events that took.

    By Hunt and Szymanski (1977): the time is that of the pairs of equal events, few as long as a pixel sends few events
    in one microsecond. With more than `most` of them only the ends are kept.
    """
    first, last = _ends(was, now)
    common = _edges(len(was), len(now), first, last)
    places: dict[int, list[int]] = {}
    for j in range(first, len(now) - last):
        places.setdefault(now[j], []).append(j)
    middle = range(first, len(was) - last)
    alike = sum(len(places.get(was[i], ())) for i in middle)
    if alike > most:
        return common, alike
    ends: list[int] = []
    nodes: list[_Node] = []
    for i in middle:
        for j in reversed(places.get(was[i], ())):
            at = bisect_left(ends, j)
            node = (i, j, nodes[at - 1] if at else None)
            if at == len(ends):
                ends.append(j)
                nodes.append(node)
            elif ends[at] != j:
                ends[at], nodes[at] = j, node
    back: _Node | None = nodes[-1] if nodes else None
    while back is not None:
        i, j, back = back
        common.append((i, j))
    return common, alike


_Option = list[tuple[int, int]]
"""Pairs of places that are kept."""


def _others(
    diff: _Diff, known: Whole, found: Whole, crowded: NDArray[np.bool_], work: _Work
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Other choices of what is kept in the microseconds where there is one, as `kept` and `new` of `_Diff`."""
    options: list[list[_Option]] = []
    for a, b, c, d in diff.swapped:
        was, now, near = known[a:b].tolist(), found[c:d].tolist(), crowded[c:d]
        # Where they cannot be listed, what is kept already is the only one.
        some = _options(was, now, work)
        if some is None:
            rows, columns = np.flatnonzero(diff.kept[a:b]), np.flatnonzero(~diff.new[c:d])
            some = [list(zip(rows.tolist(), columns.tolist(), strict=True))]
        fit = [o for o in some if near.sum() == sum(bool(near[j]) for _, j in o)]
        if not fit:
            return
        options.append(fit)
    count = prod(len(some) for some in options)
    if count > WAYS:
        work.is_cut = True
    if not options:
        return
    for way in islice(chain(_mixed(options, diff, known), product(*options)), WAYS):
        if not work.spend(len(known) // 16 + 1):
            return
        kept, new = diff.kept.copy(), diff.new.copy()
        for (a, b, c, d), option in zip(diff.swapped, way, strict=True):
            kept[a:b], new[c:d] = False, True
            for i, j in option:
                kept[a + i], new[c + j] = True, False
        yield kept, new


def _mixed(options: list[list[_Option]], diff: _Diff, known: Whole) -> Iterator[tuple[_Option, ...]]:
    """As many ON events kept as can be in the first microseconds and OFF events in the others, for each border."""
    best = []
    for some, (a, *_) in zip(options, diff.swapped, strict=True):
        kept = [sum(int(known[a + i]) % 2 for i, _ in option) for option in some]
        both = [(on, len(option) - on) for on, option in zip(kept, some, strict=True)]
        ids = range(len(some))
        best.append([some[max(ids, key=lambda k: both[k][p])] for p in (0, 1)])
    step = max(1, len(best) // (WAYS // 2))
    for border in range(0, len(best) + step, step):
        yield tuple(pair[0 if at < border else 1] for at, pair in enumerate(best))


def _options(was: Sequence[int], now: Sequence[int], work: _Work) -> list[_Option] | None:
    """Common subsequences of which none keeps only what another keeps as well; one for each choice of events.

    Equal events of one microsecond are not told apart. None where that is too much work.
    """
    first, last = _ends(was, now)
    rows, columns = len(was) - first - last, len(now) - first - last
    edges = _edges(len(was), len(now), first, last)
    if not work.affords(rows * columns * 4):
        return None
    before = work.left
    nothing: dict[frozenset[tuple[int, int]], _Option] = {frozenset(): []}
    below = [nothing] * (columns + 1)
    for i in reversed(range(rows)):
        row = [nothing] * (columns + 1)
        for j in reversed(range(columns)):
            code = was[first + i]
            if code == now[first + j]:
                # Whoever keeps neither of two equal first ones, or one of them with another, may keep both.
                cell = {
                    events | {(code, sum(one == code for one, _ in events))}: [(first + i, first + j), *pairs]
                    for events, pairs in below[j + 1].items()
                }
            else:
                cell = {**below[j], **row[j + 1]}
                if not work.affords(len(cell) ** 2 // 4) or before - work.left > WORK // 4:
                    work.is_cut = True
                    return None
                cell = {events: pairs for events, pairs in cell.items() if not any(events < more for more in cell)}
            row[j] = cell
        below = row
    return [edges + pairs for pairs in below[0].values()]


_ByLine = dict[int, list[int]]
"""Times, in order, by pixel and polarity."""


def _by_line(code: Whole, t: Whole) -> _ByLine:
    lines: _ByLine = {}
    for line, time in zip(code.tolist(), t.tolist(), strict=True):
        lines.setdefault(line, []).append(time)
    return lines


def _chosen(code: Whole, t: Whole, which: NDArray[np.bool_]) -> Callable[[list[int]], _ByLine]:
    """Times of chosen events on some lines, put together only when asked for."""

    def of(lines: list[int]) -> _ByLine:
        mine = which & np.isin(code, lines)
        return _by_line(code[mine], t[mine])

    return of


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

        self._pairs = {line: _pairs(times, new[line], reach) for line, times in gone.items() if reach and line in new}
        self._direct = [sum(len(pairs) for line, pairs in self._pairs.items() if line % 2 == p) for p in (0, 1)]

    def plain(self, bounds: Bounds) -> tuple[_Count, str]:
        """The counts with as many moves as there can be, and the first bound that is broken."""
        count = self._at(self._direct, self._direct)
        return count, _broken(count, bounds)

    def counted(self, bounds: Bounds, kept: Callable[[list[int]], _ByLine], work: _Work) -> tuple[_Count, str]:
        """The counts to report, and the first bound that is broken.

        Args:
            bounds: how many of each kind there may be.
            kept: of some lines, the times of what is in both recordings and may have been moved all the same.
            work: what may be spent.
        """
        count, broken = self.plain(bounds)
        if not broken or not self._pairs:
            return count, broken
        prices = [[1] * self._direct[p] for p in (0, 1)]
        if best := self._best(prices, bounds):
            return best, ""
        # A pair by way of kept events takes two moves at least, which spares an addition and a removal and no edit.
        if count.edits > bounds.edits or count.on > bounds.on or count.off > bounds.off:
            return count, broken
        short = max(count.added - bounds.added, count.removed - bounds.removed)
        open_lines = [
            line for line, pairs in self._pairs.items() if len(pairs) < min(len(self.gone[line]), len(self.new[line]))
        ]
        if short <= 0 or not open_lines:
            return count, broken
        still = kept(open_lines)
        for line in open_lines:
            if line in still:
                sides = self.gone[line], self.new[line], still[line]
                prices[line % 2] += _prices(*sides, self._pairs[line], self.reach, short, work)
        best = self._best(prices, bounds)
        return best or count, "" if best else broken

    def _best(self, prices: list[list[int]], bounds: Bounds) -> _Count | None:
        """The counts with the fewest edits within the bounds.

        Args:
            prices: how many moves each pair takes, by polarity.
        """
        totals = [np.concatenate([[0], np.cumsum(sorted(some), dtype=np.int64)]) for some in prices]
        on, moved_on = np.arange(len(totals[1])), totals[1]
        edits_on = self.removed[1] + self.added[1] - 2 * on + moved_on
        best: _Count | None = None
        for off, moved_off in enumerate(totals[0].tolist()):
            edits_off = self.removed[0] + self.added[0] - 2 * off + moved_off
            least = max(sum(self.added) - bounds.added, sum(self.removed) - bounds.removed) - off
            fits = (edits_on <= min(bounds.on, bounds.edits - edits_off)) & (on >= least)
            fits &= moved_on <= bounds.shifted - moved_off
            if edits_off > bounds.off or not fits.any():
                continue
            (at,) = np.nonzero(fits)
            k = int(at[edits_on[at].argmin()])
            found = self._at((off, k), (moved_off, int(moved_on[k])))
            if best is None or found.edits < best.edits:
                best = found
        return best

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


def _pairs(gone: Sequence[int], new: Sequence[int], reach: int) -> list[tuple[int, int]]:
    """Places of the most pairs of two ordered lists that lie at most `reach` apart."""
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


def _prices(
    gone: Sequence[int],
    new: Sequence[int],
    kept: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    reach: int,
    most: int,
    work: _Work,
) -> list[int]:
    """How many moves each further pair of a removal and an addition takes, the cheapest first.

    Two where one kept event lies between them, which then moved as well; and so on. This is a matching of least cost,
    grown by shortest augmenting paths: keeping costs nothing and each move costs one.

    Args:
        gone, new, kept: times on one line.
        pairs: places of as many pairs in reach as there can be; these take one move each, the least there is.
        reach: how far an event may be moved.
        most: how many pairs are of use.
        work: what may be spent; with too little, the prices so far are returned.
    """
    same = len(kept)
    old, fresh = [*kept, *gone], [*kept, *new]
    partner = {j: j for j in range(same)} | {same + j: same + i for i, j in pairs}
    free = set(range(same, len(old))) - {same + i for i, _ in pairs}
    order = sorted(range(len(fresh)), key=fresh.__getitem__)
    times = [fresh[j] for j in order]
    prices: list[int] = []

    def cost(i: int, j: int) -> int:
        return 0 if i == j < same else 1

    while len(prices) < most:
        # Bellman-Ford over the original events: taking another's place makes that one move on.
        price = dict.fromkeys(free, 0)
        came: dict[int, int] = {}
        reached: dict[int, tuple[int, int]] = {}
        waiting, queued = deque(free), set(free)
        while waiting:
            i = waiting.popleft()
            queued.remove(i)
            low, high = bisect_left(times, old[i] - reach), bisect_right(times, old[i] + reach)
            if not work.spend(high - low + 1):
                return prices
            for j in order[low:high]:
                holder = partner.get(j)
                total = price[i] + cost(i, j)
                if holder == i or (j in reached and reached[j][0] <= total):
                    continue
                reached[j] = (total, i)
                if holder is not None:
                    price[holder], came[holder] = total - cost(holder, j), j
                    if holder not in queued:
                        queued.add(holder)
                        waiting.append(holder)
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
    return prices


def _crowded(edited: Recording, gap: int) -> NDArray[np.bool_]:
    """Which events are less than a gap from another of their pixel, so that they may be kept but not new."""
    crowded = np.zeros(len(edited), np.bool_)
    if gap == 0:
        return crowded
    pixel = edited.y.astype(np.int64) * edited.sensor.width + edited.x
    order = np.lexsort((edited.t, pixel))
    near = (np.diff(pixel[order]) == 0) & (np.diff(edited.t[order]) < gap)
    crowded[order[1:][near]] = True
    crowded[order[:-1][near]] = True
    return crowded
