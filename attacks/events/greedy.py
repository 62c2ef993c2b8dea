"""The plain best-first attack on lists of events."""

from collections.abc import Sequence

from torch import Tensor, nn

from attacks.base import Attack
from attacks.events.base import EventCandidate
from attacks.events.climb import check_climb, climb
from attacks.events.lens import Lens
from attacks.events.ranking import KINDS
from attacks.events.threat import EventThreat
from events import Recording
from models.random import CounterRNG


def greedy(
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
    """Remove, add and move events, the most useful first; see `climb` for the search.

    Source: none; the strong and cheap baseline that an attack from a paper should beat. On a linear model whose frames
    are cut by time one round reaches the optimum of the budget.

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        recordings: N of them.
        y: true labels [N].
        threat: which edits are allowed, and how many.
        lens: how the network sees recordings.
        steps: rounds, at least 1.
        rng: not used: the search is deterministic but for the network's own noise.
        width: single edits tried a round, at least 1.

    Raises:
        ValueError: steps or width below 1.
    """
    return climb(model, recordings, y, threat, lens, KINDS, steps, width)


GREEDY = Attack(
    greedy,
    "best-first edits of events: the gradient proposes, the true frames decide",
    takes_steps=True,
    defaults={"width": 8},
    domain="events",
    kinds=KINDS,
    check=check_climb,
    cost=lambda steps: (20 * steps, steps),
)
