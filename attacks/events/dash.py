"""Dash: two pixels beside each other that send events, and move along."""

from collections.abc import Sequence

from torch import Tensor, nn

from attacks.base import Attack
from attacks.events.base import EventCandidate
from attacks.events.dashes import moving_dash
from attacks.events.draft import ADDED
from attacks.events.growth import Pattern, check_growth, grow
from attacks.events.lens import Lens
from attacks.events.threat import EventThreat
from events import Recording
from models.random import CounterRNG


def dash(
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
    """A dash of two pixels moves along a row while the recording lasts, and sends ever more until the network errs.

    Source: Marchisio et al., DVS-Attacks, IJCNN 2021 (arXiv 2107.00415): at any time it is two pixels, so a person
    hardly sees it. There the dash has no budget. Here the time is cut into equal slots, in each of which both pixels
    send one event; with more slots than places in the row it stays some slots at each place, which a mask filter
    notices (see `mf_dash`).
    It takes no gradient; on a network with noise, margins are means over as many draws as gradients would be
    (`estimating`). Cost: at most sizes + 1 forwards.

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        recordings: N of them.
        y: true labels [N].
        threat: budgets and rules; no event is moved or removed.
        lens: how the network sees recordings.
        rng: draws the row of each recording.
        polarity: of the new events: `on`, `off`, or `both` in turn.
        sizes: how often the pattern grows, doubling each time, at least 1.

    Returns:
        one recording each, within the budget; see `grow`.

    Raises:
        ValueError: a parameter out of range, or a sensor of one column.
    """
    check_growth({"polarity": polarity, "sizes": sizes}, threat)
    rows = rng.uniform((1,)).squeeze(1).tolist()

    def pattern(number: int, recording: Recording) -> Pattern:
        return moving_dash(recording, rows[number], threat, lens, polarity)

    return grow(model, recordings, y, threat, lens, pattern, sizes)


DASH = Attack(
    dash,
    "a dash of two pixels that moves along a row, with more and more events until the network errs",
    defaults={"polarity": "on", "sizes": 8},
    norms=("events",),
    cost=lambda _: (9, 0),
    domain="events",
    kinds=(ADDED,),
    check=check_growth,
)
