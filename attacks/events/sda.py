"""Sparse dynamic attack on lists of events."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from attacks.base import Attack
from attacks.events.base import EventCandidate
from attacks.events.draft import ADDED, Draft
from attacks.events.gains import Floats
from attacks.events.lens import Lens
from attacks.events.ranking import KINDS, Ranking
from attacks.events.sight import Sight
from attacks.events.sketch import Sketch, Wish
from attacks.events.threat import EventThreat
from attacks.gradients import frozen
from events import Recording
from models.random import CounterRNG

_MORE_EACH_ROUND = 10
_FLAT = 5


def sda(
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    *,
    steps: int,
    rng: CounterRNG,
) -> EventCandidate:
    """The gradient proposes edits, each is tried alone, all that did no harm are made together; in the end as many as
    possible are undone.

    Round k (from 1) takes the 10 k edits of the largest first-order gain that were not tried yet, tries each alone on
    the present recording, and keeps those whose margin does not fall: its change is the edit's finite difference. The
    next recording is the original with the kept edits of the largest differences, as many as the budget allows. Once
    a recording is misclassified, kept edits are undone in the order of rising differences: the largest number that
    leaves it misclassified, by binary search.

    Source: Lun et al., arXiv 2503.03272 (CVPR 2025), sparse dynamic attack, as the official code has it. There inputs
    are binary frames and an edit flips an entry; here edits are of events, and every recording tried is framed anew,
    so that borders of frames move. Where they differ further: edits have a budget; an edit that succeeds alone ends
    the search; the gain of an edit counts the borders that it moves; edits whose gain is exactly 0 are ordered by
    chance below all others, as there, but edits of negative gain come last instead of never; a place that got an event
    may get another; a recording that the kept edits make no worse than an earlier one is not handed over: the one of
    the largest margin is. On a stochastic network nothing is undone, since one success may be luck.

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        recordings: N of them.
        y: true labels [N].
        threat: which edits are allowed, and how many.
        lens: how the network sees recordings.
        steps: rounds, at least 1; the official code has 500.
        rng: the order of edits without a gradient.

    Raises:
        ValueError: steps below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    sight = Sight.of(model, y, lens)
    found = [_Search(recording, row, threat, lens, rng) for row, recording in enumerate(recordings)]
    with frozen(model):
        _generate(sight, found, steps)
        if not sight.patient:
            _reduce(sight, [search for search in found if search.margin > 0 and search.made], 2 * steps + 1)
    return EventCandidate(tuple(search.best.recording for search in found))


def _generate(sight: Sight, found: "list[_Search]", steps: int) -> None:
    left = [search for search in found if not search.is_hopeless]
    if left:
        for search, value in zip(left, _margins(sight, [(s, s.best) for s in left], 0), strict=True):
            search.margin = search.at = value
    for step in range(steps):
        left = [search for search in left if not search.is_hopeless and (sight.patient or search.margin <= 0)]
        if not left:
            return
        slopes = sight.slopes([s.row for s in left], [s.draft.recording for s in left], 1 + 2 * step)
        tried = [search.proposed(slope, step) for search, slope in zip(left, slopes, strict=True)]
        # The present recording is judged again, by the noise that its rivals meet.
        pairs = list(zip(left, tried, strict=True))
        shown = [(search, draft) for search, trials in pairs for draft in (search.draft, *(t.draft for t in trials))]
        values = iter(_margins(sight, shown, 2 + 2 * step))
        for search, trials in pairs:
            search.keep(trials, next(values), [next(values) for _ in trials])
        # So are what each keeps and the best so far.
        shown = [(search, draft) for search in left for draft in (search.draft, search.best)]
        values = iter(_margins(sight, shown, 2 + 2 * step))
        for search in left:
            search.rebuilt(next(values), next(values))


def _reduce(sight: Sight, found: "list[_Search]", moment: int) -> None:
    """Undo as many edits as leave each sample misclassified, those of the smallest differences first."""
    bounds = {search.row: (0, len(search.made)) for search in found}
    while left := [search for search in found if bounds[search.row][0] + 1 < bounds[search.row][1]]:
        middle = {search.row: sum(bounds[search.row]) // 2 for search in left}
        drafts = [search.of(search.made[: len(search.made) - middle[search.row]])[0] for search in left]
        values = _margins(sight, list(zip(left, drafts, strict=True)), moment)
        for search, draft, value in zip(left, drafts, values, strict=True):
            low, high = bounds[search.row]
            bounds[search.row] = (middle[search.row], high) if value > 0 else (low, middle[search.row])
            if value > 0:
                search.best = draft


def _margins(sight: Sight, shown: "Sequence[tuple[_Search, Draft]]", moment: int) -> list[float]:
    rows, drafts = [search.row for search, _ in shown], [draft.recording for _, draft in shown]
    values: list[float] = sight.margins(rows, drafts, moment).tolist()
    return values


class _Trial(NamedTuple):
    wish: Wish
    number: int
    draft: Draft


class _Kept(NamedTuple):
    difference: float
    wish: Wish


class _Search:
    """One sample's search.

    Attributes:
        row: its number in the chunk.
        draft, at: the recording with the kept edits, and its margin.
        best, margin: the recording of the largest margin, and that.
        made: the edits that `best` has, from the largest difference to the smallest.
    """

    def __init__(self, recording: Recording, row: int, threat: EventThreat, lens: Lens, rng: CounterRNG) -> None:
        self.row = row
        self.original = self.draft = self.best = Draft.of(recording)
        self.at = self.margin = -np.inf
        self.made: list[_Kept] = []
        self._threat, self._lens, self._rng = threat, lens, rng
        self._kept: list[_Kept] = []
        self._making: list[_Kept] = []
        self._tried: set[int] = set()
        self.is_hopeless = Sketch(self.draft, threat).is_spent

    def proposed(self, slope: Floats, step: int) -> list[_Trial]:
        """The edits to try in a round, each alone on the present recording, with room made for one."""
        if Sketch(self.draft, self._threat).is_spent:
            self.draft, self._making = self.of(self._making[:-1])
        base = self.draft
        wanted = _MORE_EACH_ROUND * (step + 1)
        ranking = Ranking(base, self._lens.framing, slope, self._threat, wanted + len(self._tried), KINDS)
        self._order_the_flat(ranking, step)
        trials: list[_Trial] = []
        for place, number in enumerate(ranking.numbers.tolist()):
            if len(trials) == wanted:
                break
            wish = ranking.wish(place)
            sketch = Sketch(base, self._threat)
            if number not in self._tried and sketch.take(wish):
                trials.append(_Trial(wish, number, sketch.draft()))
        self.is_hopeless = not trials
        return trials

    def keep(self, trials: list[_Trial], at: float, values: list[float]) -> None:
        """Judge the trials and make the next recording of what is kept."""
        self.at = at
        for trial, value in zip(trials, values, strict=True):
            if value >= at:
                self._kept.append(_Kept(value - at, trial.wish))
            if not (value >= at and trial.wish.kind == ADDED):
                self._tried.add(trial.number)
        self._kept.sort(key=lambda kept: -kept.difference)
        if values and max(values) > max(0, self.margin):
            winner = trials[int(np.argmax(values))]
            self.draft = winner.draft
            # Alone upon what was made before, it is the edit that matters most.
            self._making = [_Kept(np.inf, winner.wish), *self._making]
        else:
            self.draft, self._making = self.of(self._kept)

    def rebuilt(self, at: float, best: float) -> None:
        """Compare the next recording with the best one, by the same noise."""
        self.at, self.margin = at, best
        if at > best:
            self.best, self.margin, self.made = self.draft, at, self._making

    def of(self, wanted: list[_Kept]) -> tuple[Draft, list[_Kept]]:
        """The original with the first of some edits that the budget allows, and which these are."""
        sketch = Sketch(self.original, self._threat)
        made = [kept for kept in wanted if sketch.take(kept.wish)]
        return sketch.draft(), made

    def _order_the_flat(self, ranking: Ranking, step: int) -> None:
        """Give edits whose gain is exactly 0 random gains below the smallest that is positive."""
        (flat,) = np.nonzero(ranking.gains == 0)
        if len(flat):
            positive = ranking.gains[ranking.gains > 0]
            least = float(positive[-1]) if len(positive) else 1.0
            row = torch.tensor([self.row], device=self._rng.samples.device)
            u = self._rng.rows(row).uniform((len(ranking),), stream=_FLAT, draw=step)[0]
            gains = ranking.gains.copy()
            gains[flat] = least * u.double().cpu().numpy()[flat]
            ranking.reorder(gains)


SDA = Attack(
    sda,
    "edits of events that do no harm alone are made together, then undone as far as possible",
    takes_steps=True,
    domain="events",
    kinds=KINDS,
    cost=lambda steps: (_MORE_EACH_ROUND * steps * (steps + 1) // 2 + 4 * steps, steps),
)
