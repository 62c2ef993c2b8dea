"""Corner: events that grow out of the corners."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from attacks.base import Attack
from attacks.events.base import EventCandidate
from attacks.events.growth import Gradient, Pattern, check_growth, flickering, grow
from attacks.events.lens import Lens
from attacks.events.placing import Whole
from attacks.events.threat import EventThreat
from events import Recording, Sensor
from models.random import CounterRNG


def corner(
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    *,
    rng: CounterRNG,
    gradient: Gradient = None,
    eot: int | None = None,
    polarity: str = "on",
    sizes: int = 8,
) -> EventCandidate:
    """Squares in the four corners send events in every frame; they grow until the network errs.

    Source: Marchisio et al., DVS-Attacks, IJCNN 2021 (arXiv 2107.00415). There the corners grow by whole
    squares, and no budget ends the growth; here pixel by pixel, the nearest to a corner first, up to the budget.
    It looks at no gradient. Cost: at most sizes + 1 forwards (times `eot`).

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        recordings: N of them.
        y: true labels [N].
        threat: budgets and rules; no event is moved or removed.
        lens: how the network sees recordings.
        rng: not used; the pattern has nothing random.
        gradient: not used, since no gradient is taken.
        eot: on a stochastic network margins are means over so many draws; None is what `estimating` says.
        polarity: of the new events: `on`, `off`, or `both` in turn.
        sizes: how often the pattern grows, doubling each time, at least 1.

    Returns:
        one recording each, within the budget; see `grow`.

    Raises:
        ValueError: a parameter out of range.
    """
    check_growth(polarity, sizes)

    def pattern(_: int, recording: Recording) -> Pattern:
        return flickering(recording, corners(recording.sensor), threat, lens, polarity)

    return grow(model, recordings, y, threat, lens, pattern, gradient=gradient, eot=eot, sizes=sizes)


def corners(sensor: Sensor) -> Whole:
    """Column and row of all pixels [m, 2], those of smaller squares in the corners first, the four corners in turn."""
    rows, columns = np.mgrid[: sensor.height, : sensor.width].reshape(2, -1)
    in_x, in_y = (np.minimum(at, size - 1 - at) for at, size in ((columns, sensor.width), (rows, sensor.height)))
    order = np.lexsort((in_x, in_y, np.maximum(in_x, in_y)))
    return np.stack([columns, rows], 1)[order]


CORNER = Attack(
    corner,
    "squares of new events in the corners, which grow until the network errs",
    defaults={"polarity": "on", "sizes": 8},
    cost=lambda _: (9, 0),
)
