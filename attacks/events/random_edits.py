"""Random edits of recordings: what an attack on events must beat."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attacks.base import Attack
from attacks.combinators import COMPARISONS, seek
from attacks.events.base import EventCandidate
from attacks.events.ledger import Event, Ledger
from attacks.events.lens import Lens
from attacks.events.ranking import KINDS
from attacks.events.run import margins
from attacks.events.threat import EventThreat
from events import Recording
from models.random import CounterRNG

_BLOCK = 1024
_PATIENCE = 64
"""After so many refusals in a row a kind of edit is given up: a small sensor may have no place left."""


def random_edits(
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    *,
    rng: CounterRNG,
    tries: int = 1,
) -> EventCandidate:
    """Spend the whole budget on random legal edits; of several tries keep the one with the largest true margin.

    Each edit is of a kind drawn evenly from those with room: remove a random event, add one at a random pixel, time
    and polarity, or, where `max_shift` allows it, move a random event evenly within reach. Edits that a rule is
    against are drawn again.

    Source: none; what any attack on events must beat.
    Cost: a forward pass for each try, none for one try. Tries are compared under the same draw of a noisy network's
    noise.

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        recordings: N of them.
        y: true labels [N].
        threat: the rules.
        lens: how the network sees recordings.
        rng: every random number.
        tries: how many candidates are made of each recording, at least 1.

    Returns:
        recordings with exactly floor(eps * n) edits made, fewer where the rules leave no place for more.

    Raises:
        ValueError: tries below 1.
    """
    _check({"tries": tries}, threat)
    kept: list[Recording] = []
    best = torch.zeros(0)
    for number in range(tries):
        made = [_edited(one, threat, _Numbers(rng, row, number)) for row, one in enumerate(recordings)]
        if tries == 1:
            return EventCandidate(tuple(made))
        seek(COMPARISONS)
        found = margins(model, lens, made, y)
        if not number:
            kept, best = made, found
            continue
        for row in (found > best).nonzero().flatten().tolist():
            kept[row], best[row] = made[row], found[row]
    return EventCandidate(tuple(kept))


def _check(params: Mapping[str, Any], _: EventThreat) -> None:
    if params["tries"] < 1:
        raise ValueError(f"tries must be at least 1, got {params['tries']}")


class _Numbers:
    """Random whole numbers of one sample, as many as are asked for."""

    def __init__(self, rng: CounterRNG, row: int, stream: int) -> None:
        self.rng = rng.rows(torch.tensor([row], device=rng.samples.device))
        self.stream, self.block, self.held = stream, 0, list[float]()

    def below(self, count: int) -> int:
        """Evenly one of 0, ..., count - 1."""
        if not self.held:
            self.held = self.rng.uniform((_BLOCK,), stream=self.stream, draw=self.block)[0].tolist()
            self.block += 1
        # float32 numbers are in (0, 1].
        return min(int(self.held.pop() * count), count - 1)


def _edited(recording: Recording, threat: EventThreat, numbers: _Numbers) -> Recording:
    ledger = Ledger(recording, threat)
    kinds = ["removed", "added", *(["shifted"] if threat.max_shift else [])]
    refused = dict.fromkeys(kinds, 0)
    while kinds and ledger.left["edits"]:
        kind = kinds[numbers.below(len(kinds))]
        if _edit(ledger, kind, numbers):
            refused[kind] = 0
            continue
        refused[kind] += 1
        if refused[kind] == _PATIENCE or not (ledger.room(kind, 0) or ledger.room(kind, 1)):
            kinds.remove(kind)
    return ledger.edits().apply(recording)


def _edit(ledger: Ledger, kind: str, numbers: _Numbers) -> bool:
    recording = ledger.recording
    if kind == "added":
        sensor, span = recording.sensor, int(recording.t[-1]) + 1
        x, y, p = (numbers.below(count) for count in (sensor.width, sensor.height, 2))
        return ledger.add(Event(x, y, numbers.below(span), p))
    number = numbers.below(len(recording))
    if kind == "removed":
        return ledger.remove(number)
    reach = ledger.threat.max_shift
    return ledger.move(number, int(recording.t[number]) - reach + numbers.below(2 * reach + 1))


RANDOM_EDITS = Attack(
    random_edits,
    "random edits of events, exactly the budget: what the others must beat",
    defaults={"tries": 1},
    cost=lambda steps: (1, 0),
    domain="events",
    kinds=KINDS,
    check=_check,
)
