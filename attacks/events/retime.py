"""Events moved in time only."""

from collections.abc import Sequence

from torch import Tensor, nn

from attacks.base import Attack
from attacks.events.base import EventCandidate
from attacks.events.climb import check_climb, climb
from attacks.events.draft import SHIFTED
from attacks.events.lens import Lens
from attacks.events.threat import EventThreat
from events import Recording
from models.random import CounterRNG

_KINDS = (SHIFTED,)


def retime(
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    *,
    steps: int,
    rng: CounterRNG,
    width: int = 8,
) -> EventCandidate:
    """Every event keeps its pixel and its polarity and moves by at most `max_shift`: what every pixel sends in all
    stays the same, so that a defence that looks at rates sees nothing.

    Source: the threat model of spike retiming (the PIL repository, ICLR 2026): B_inf is `max_shift` and B_0 the share
    eps. Its search is another one: there soft weights over
    shifts are learnt and projected at the end; here an event moves to another frame where that helps to first order and
    by the true frames (see `climb`), and no further than it takes to be counted there. Shifts are microseconds, not
    frames. B_1, the sum of all shifts, is not bounded.

    Args:
        as for `greedy`.

    Raises:
        ValueError: a threat model that lets no event move, or steps or width below 1.
    """
    threat.check_kinds(_KINDS)
    return climb(model, recordings, y, threat, lens, _KINDS, steps, width)


RETIME = Attack(
    retime,
    "moves events in time and keeps what each pixel sends",
    takes_steps=True,
    defaults={"width": 8},
    domain="events",
    kinds=_KINDS,
    check=check_climb,
    cost=lambda steps: (20 * steps, steps),
)
