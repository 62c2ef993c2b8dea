"""Best-first search over edits: the gradient proposes, the network as it would truly see them decides."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor, nn

from attacks.events.base import EventCandidate
from attacks.events.draft import ADDED, Draft
from attacks.events.gains import Floats
from attacks.events.lens import Lens
from attacks.events.ranking import Ranking
from attacks.events.sight import Sight
from attacks.events.sketch import Sketch
from attacks.events.threat import EventThreat
from attacks.gradients import frozen
from events import Framing, Recording


def climb(
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    kinds: Collection[str],
    steps: int,
    width: int,
) -> EventCandidate:
    """Rounds of: rank all single edits by the margin's first-order gain, try some of them, go where the margin is best.

    Tried in a round are the `width` best edits, each alone; then the best 2, 4, 8, ... together, up to twice the share
    of the budget that is due in a round, once with each place of a frame getting one event at most, once with as many
    as there is time for. Every trial is a legal list of events that is framed anew, so that borders of frames move as
    they would. Where no trial raises the margin the best one is taken all the same, since a margin made of spikes has
    plateaus. Once the budget is spent the search goes back to the draft of the largest margin, or to where that came
    from if it spent the budget too, and tries the edits that come next there; and further back once there are none.
    What is handed over is the draft of the largest margin. A sample is left alone once it is misclassified (not on a
    stochastic network, where that may be luck) or no edit is left to be tried.

    Cost: a forward and backward pass a round, and about width + 2 log2(budget / steps) forward passes.

    Args:
        model, recordings, y, threat, lens: as every attack's on events.
        kinds: of edits.
        steps: rounds, at least 1.
        width: single edits tried a round, at least 1.

    Raises:
        ValueError: steps or width below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    check_climb({"width": width}, threat)
    sight = Sight.of(model, y, lens)
    climbers = [_Climber(recording, threat, lens.framing, kinds, width, sight.patient) for recording in recordings]
    with frozen(model):
        for step in range(steps):
            left = [row for row, climber in enumerate(climbers) if climber.climbs()]
            if not left:
                break
            slopes = sight.slopes(left, [climbers[row].draft.recording for row in left], 2 * step)
            for row, slope in zip(left, slopes, strict=True):
                climbers[row].look(slope, steps - step)
            owners = [row for row in left for _ in climbers[row].trials]
            shown = [draft.recording for row in left for draft in climbers[row].trials]
            margins = iter(sight.margins(owners, shown, 2 * step + 1).tolist())
            for row in left:
                climbers[row].judge(list(islice(margins, len(climbers[row].trials))))
    return EventCandidate(tuple(climber.best.recording for climber in climbers))


def check_climb(params: Mapping[str, Any], _: EventThreat) -> None:
    """Refuse parameters that no search has.

    Raises:
        ValueError: a width below 1.
    """
    if params["width"] < 1:
        raise ValueError(f"width must be at least 1, got {params['width']}")


@dataclass
class _Place:
    """A draft, and where in its ranking of single edits the next look goes on."""

    draft: Draft
    next: int = 0


class _Climber:
    """One sample's search.

    Attributes:
        best: where the margin was largest.
        trials: what is to be judged: the best draft, and trials that start from the present one.
    """

    def __init__(
        self,
        recording: Recording,
        threat: EventThreat,
        framing: Framing,
        kinds: Collection[str],
        width: int,
        patient: bool,
    ) -> None:
        self.best = Draft.of(recording)
        self.trials: list[Draft] = []
        self._threat, self._framing, self._kinds = threat, framing, kinds
        self._width, self._patient = width, patient
        self._margin = -math.inf
        # The drafts that led here, and how far along they are to go back to once the budget is spent.
        self._path = [] if self._is_spent(self.best) else [_Place(self.best)]
        self._mark = 0

    @property
    def draft(self) -> Draft:
        """Where it stands."""
        return self._path[-1].draft

    def climbs(self) -> bool:
        """Whether to go on; takes a search that has no budget left back."""
        if self._margin > 0 and not self._patient:
            return False
        if self._path and self._is_spent(self.draft):
            del self._path[self._mark + 1 :]
        return bool(self._path)

    def look(self, slope: Floats, rounds: int) -> None:
        """Choose what to try, given the margin's slope in each count and how many rounds are left."""
        place, self.trials = self._path[-1], [self.best]
        left = self._threat.edits(len(place.draft.original)) - place.draft.count
        due = min(left, math.ceil(2 * left / rounds))
        begun, most = place.next > 0, due + place.next + self._width
        while True:
            ranking = Ranking(place.draft, self._framing, slope, self._threat, most, self._kinds)
            single = self._singles(ranking)
            if single or len(ranking) < most:
                break
            # None of these finds time or budget, but there are more.
            most *= 4
        if not single:
            self._path.pop()
            self._mark = min(self._mark, len(self._path) - 1)
            return
        self.trials += single
        if not begun:
            self.trials += self._together(ranking, due, repeat=False) + self._together(ranking, due, repeat=True)

    def judge(self, margins: list[float]) -> None:
        """Go on from the trial of the largest margin."""
        # On a stochastic network of the same noise as its rivals'.
        self._margin = margins[0]
        if len(margins) == 1 or (self._margin > 0 and not self._patient):
            return
        chosen = max(range(1, len(margins)), key=lambda trial: margins[trial])
        self._path.append(_Place(self.trials[chosen]))
        if margins[chosen] > self._margin:
            self.best, self._margin = self.draft, margins[chosen]
            self._mark = len(self._path) - (2 if self._is_spent(self.best) else 1)

    def _is_spent(self, draft: Draft) -> bool:
        return Sketch(draft, self._threat).is_spent

    def _singles(self, ranking: Ranking) -> list[Draft]:
        place, drafts = self._path[-1], list[Draft]()
        while place.next < len(ranking) and len(drafts) < self._width:
            sketch = Sketch(place.draft, self._threat)
            if sketch.take(ranking.wish(place.next)):
                drafts.append(sketch.draft())
            place.next += 1
        return drafts

    def _together(self, ranking: Ranking, most: int, *, repeat: bool) -> list[Draft]:
        """The best 2, 4, 8, ... edits, at most so many; with `repeat` as many events a place as find time."""
        sketch, drafts, due = Sketch(self.draft, self._threat), [], 2
        for wish, gain in zip(ranking, ranking.gains, strict=True):
            if gain <= 0 or len(sketch) == most:
                break
            while len(sketch) < most and sketch.take(wish):
                if len(sketch) == due:
                    drafts.append(sketch.draft())
                    due *= 2
                if not repeat or wish.kind != ADDED:
                    break
        if len(sketch) > 1 and 2 * len(sketch) != due:
            drafts.append(sketch.draft())
        return drafts
