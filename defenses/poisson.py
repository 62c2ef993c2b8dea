"""Poisson encoding."""

from dataclasses import dataclass
from typing import ClassVar

from defenses.base import Defense, Part, Setting
from defenses.search import searched


def refuse_counts(name: str, setting: Setting) -> None:
    """Raises ValueError where inputs are no probabilities: frames of counts that leave [0, 1]."""
    box = setting.box
    if box.low < 0 or box.high > 1:
        raise ValueError(
            f"{name} reads pixels as probabilities, and these inputs lie in [{box.low:g}, {box.high:g}]; leave it out, "
            f"recordings are spikes as they are, or give the frames a scale of at least their largest count"
        )


@dataclass(frozen=True)
class PoissonEncoding(Part):
    """A pixel is the probability of a spike, see `PoissonEncoder`."""

    name: ClassVar[str] = "poisson-encoding"
    slot: ClassVar[str | None] = "encoding"

    def settled(self, setting: Setting) -> "PoissonEncoding":
        refuse_counts("poisson", setting)
        return self

    def encoder(self) -> str:
        return "poisson"

    def extra_passes(self) -> float:
        return 0.3


@searched()
def poisson() -> Defense:
    """Poisson (rate) encoding: at each step a pixel fires with the probability of its value.

    A noisy network: it is attacked and scored with the noise on.

    Source: Sharmin et al., ECCV 2020; as certified randomised smoothing Mukhoty et al., ICLR 2024.
    """
    return Defense("poisson", (PoissonEncoding(),))
