"""Corner: events that grow out of the corners."""

from collections.abc import Sequence

from torch import Tensor, nn

from attacks.base import Attack
from attacks.events.base import EventCandidate
from attacks.events.draft import ADDED
from attacks.events.growth import Pattern, check_growth, flickering, grow
from attacks.events.lens import Lens
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
    polarity: str = "on",
    sizes: int = 8,
) -> EventCandidate:
    """Squares in the four corners send events in every frame; they grow until the network errs.

    Source: Marchisio et al., DVS-Attacks, IJCNN 2021 (arXiv 2107.00415). There the corners grow by whole
    squares, and no budget ends the growth; here pixel by pixel, the nearest to a corner first, up to the budget.
    It takes no gradient; on a network with noise, margins are means over as many draws as gradients would be
    (`estimating`). Cost: at most sizes + 1 forwards.

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        recordings: N of them.
        y: true labels [N].
        threat: budgets and rules; no event is moved or removed.
        lens: how the network sees recordings.
        rng: not used; the pattern has nothing random.
        polarity: of the new events: `on`, `off`, or `both` in turn.
        sizes: how often the pattern grows, doubling each time, at least 1.

    Returns:
        one recording each, within the budget; see `grow`.

    Raises:
        ValueError: a parameter out of range.
    """
    check_growth({"polarity": polarity, "sizes": sizes}, threat)

    def pattern(_: int, recording: Recording) -> Pattern:
        return flickering(recording, corners(recording.sensor), threat, lens, polarity)

    return grow(model, recordings, y, threat, lens, pattern, sizes)


def corners(sensor: Sensor) -> list[tuple[int, int]]:
    """Column and row of all pixels, those of smaller squares in the corners first, the four corners in turn."""
    right, down = sensor.width - 1, sensor.height - 1

    def size(pixel: tuple[int, int]) -> tuple[int, int, int]:
        x, y = min(pixel[0], right - pixel[0]), min(pixel[1], down - pixel[1])
        return max(x, y), x, y

    return sorted(((x, y) for y in range(sensor.height) for x in range(sensor.width)), key=size)


CORNER = Attack(
    corner,
    "squares of new events in the corners, which grow until the network errs",
    defaults={"polarity": "on", "sizes": 8},
    norms=("events",),
    cost=lambda _: (9, 0),
    domain="events",
    kinds=(ADDED,),
    check=check_growth,
)
