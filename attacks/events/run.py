"""Runs any attack on events: gradients, restarts, and which of two proposals is kept."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attacks.base import Attack
from attacks.combinators import COMPARISONS, DRAWS_PER_RUN, seek
from attacks.events.base import EventCandidate
from attacks.events.lens import Lens
from attacks.events.threat import EventThreat
from attacks.gradients import SpikeGradient, estimating, frozen
from attacks.losses import margin
from events import Recording
from models.random import CounterRNG
from models.surrogates import Surrogate


def margins(model: nn.Module, lens: Lens, recordings: Sequence[Recording], y: Tensor) -> Tensor:
    """The margin loss of recordings as the network really sees them, framed again: [N], positive where another wins.

    One draw of a noisy network's noise.

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        lens: how it sees recordings.
        recordings: N of them.
        y: labels [N].
    """
    with frozen(model), torch.no_grad():
        return margin(model(lens.frames(recordings)), y)


def run_on_events(
    attack: Attack,
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    *,
    rng: CounterRNG,
    steps: int = 0,
    restarts: int = 1,
    gradient: Surrogate | SpikeGradient | None = None,
    eot: int | None = None,
    **params: Any,
) -> EventCandidate:
    """Run an attack on events `restarts` times with independent randomness; per sample keep the larger true margin.

    The first run is exactly the unwrapped attack's; ties keep the earlier. Each later run costs two forwards more than
    the attack.

    Args:
        attack: with `domain="events"`.
        model, recordings, y, threat, lens, rng: as `EventCandidate` says of its function.
        steps: for an attack that takes them.
        gradient: how the attacker differentiates spikes; None is the network's own way.
        eot: every gradient is the mean over so many draws of the model's noise, see `estimating`.
        params: the attack's own.
    """
    given = params | ({"steps": steps} if attack.takes_steps else {})
    kept: EventCandidate | None = None
    with estimating(model, gradient, eot):
        for restart in range(restarts):
            seek(restart * DRAWS_PER_RUN)
            found: EventCandidate = attack.run(model, recordings, y, threat, lens, rng=rng.fork(restart), **given)
            kept = found if kept is None else _stronger(model, lens, y, kept, found, restart)
    if kept is None:
        raise ValueError(f"restarts must be at least 1, got {restarts}")
    return kept


def _stronger(
    model: nn.Module, lens: Lens, y: Tensor, a: EventCandidate, b: EventCandidate, restart: int
) -> EventCandidate:
    found = []
    for one in (a, b):
        seek(COMPARISONS + restart * DRAWS_PER_RUN)
        found.append(margins(model, lens, one.recordings, y))
    better = found[1] > found[0]
    recordings = tuple(b.recordings[i] if won else a.recordings[i] for i, won in enumerate(better.tolist()))
    if a.frames is None and b.frames is None:
        return EventCandidate(recordings)
    mine, theirs = (lens.frames(one.recordings) if one.frames is None else one.frames for one in (a, b))
    return EventCandidate(recordings, torch.where(better.view(-1, 1, 1, 1, 1), theirs, mine))
