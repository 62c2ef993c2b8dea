"""Frame: a border of events around the scene."""

from collections.abc import Sequence

from torch import Tensor, nn

from attacks.base import Attack
from attacks.events.base import EventCandidate
from attacks.events.draft import ADDED
from attacks.events.growth import Pattern, check_growth, evenly, flickering, grow
from attacks.events.lens import Lens
from attacks.events.threat import EventThreat
from events import Recording, Sensor
from models.random import CounterRNG


def frame(
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
    """Pixels at the sensor's border send events in every frame, more and more of them until the network errs.

    Source: Marchisio et al., DVS-Attacks, IJCNN 2021 (arXiv 2107.00415). There every border pixel is on all the time,
    and no budget ends the growth; here pixels come one by one, evenly around the border, up to the budget.
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
        return flickering(recording, border(recording.sensor), threat, lens, polarity)

    return grow(model, recordings, y, threat, lens, pattern, sizes)


def border(sensor: Sensor) -> list[tuple[int, int]]:
    """Column and row of the pixels at the edge, in an order whose every beginning surrounds the scene evenly."""
    right, down = sensor.width - 1, sensor.height - 1
    around = [(x, 0) for x in range(right)] + [(right, y) for y in range(down)]
    around += [(x, down) for x in range(right, 0, -1)] + [(0, y) for y in range(down, 0, -1)]
    # One row or column is its own other side.
    pixels = list(dict.fromkeys(around)) or [(0, 0)]
    return [pixels[number] for number in evenly(len(pixels))]


FRAME = Attack(
    frame,
    "a border of new events, more and more of them until the network errs",
    defaults={"polarity": "on", "sizes": 8},
    norms=("events",),
    cost=lambda _: (9, 0),
    domain="events",
    kinds=(ADDED,),
    check=check_growth,
)
