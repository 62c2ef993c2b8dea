"""What an attack on events is to the harness."""

from typing import NamedTuple

from torch import Tensor

from events import Recording


class EventCandidate(NamedTuple):
    """What an attack on events proposes.

    An attack on events is an `attacks.base.Attack` with `domain="events"`, whose function is
    `run(model, recordings, y, threat, lens, *, rng, **params) -> EventCandidate`: the recordings of N samples, labels
    [N], an `EventThreat`, a `Lens`, and a `CounterRNG` whose rows are the samples. With `takes_steps` it is also given
    `steps`. A proposal is always legal; an attack that finds nothing hands back the original.

    Attributes:
        recordings: what the attacker hands over, N lists of events.
        frames: the frames that the attack itself computed with and believed in, [N, T, 2, H, W]; None where these are
            the frames of `recordings`.
    """

    recordings: tuple[Recording, ...]
    frames: Tensor | None = None
