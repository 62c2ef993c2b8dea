"""Mask-filter-aware dash: a dash that no pixel's count gives away."""

from collections.abc import Mapping, Sequence
from typing import Any

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


def mf_dash(
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    *,
    rng: CounterRNG,
    polarity: str = "on",
    mask: int = 250,
    sizes: int = 8,
) -> EventCandidate:
    """A dash that moves on before any pixel has more events than a mask filter lets pass.

    Source: Marchisio et al., DVS-Attacks, IJCNN 2021 (arXiv 2107.00415), whose mask filter has the threshold 250. It is
    `dash`, but that it leaves each pixel in time, counting the recording's own events, and goes on in the next row. So
    `events.filters.mask_filter(recording, mask)` leaves out no event that it added. Where no pixel comes near to
    `mask`, it is `dash`.
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
        mask: the filter's threshold, events a pixel may have in all, at least 1.
        sizes: how often the pattern grows, doubling each time, at least 1.

    Returns:
        one recording each, within the budget; see `grow`.

    Raises:
        ValueError: a parameter out of range, or a sensor of one column.
    """
    _check({"polarity": polarity, "sizes": sizes, "mask": mask}, threat)
    rows = rng.uniform((1,)).squeeze(1).tolist()

    def pattern(number: int, recording: Recording) -> Pattern:
        return moving_dash(recording, rows[number], threat, lens, polarity, mask)

    return grow(model, recordings, y, threat, lens, pattern, sizes)


def _check(params: Mapping[str, Any], threat: EventThreat) -> None:
    check_growth(params, threat)
    if params["mask"] < 1:
        raise ValueError(f"mask must be at least 1, got {params['mask']}")


MF_DASH = Attack(
    mf_dash,
    "the dash, moving on before a mask filter notices it",
    defaults={"polarity": "on", "mask": 250, "sizes": 8},
    norms=("events",),
    cost=lambda _: (9, 0),
    domain="events",
    kinds=(ADDED,),
    check=_check,
)
