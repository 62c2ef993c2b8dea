"""Frequency encoding, the first half of FEEL-SNN."""

from dataclasses import dataclass, replace
from typing import ClassVar

from defenses.base import Defense, Part, Setting
from defenses.search import Range, searched


@dataclass(frozen=True)
class FrequencyEncoding(Part):
    """Step t of T is shown the image's frequencies below (1 - step t) of the highest, see `FrequencyEncoder`.

    Attributes:
        step: by how much of the spectrum each time step narrows the band; None is 1/8, or 1/T where T is above 8.
    """

    name: ClassVar[str] = "frequency-encoding"
    slot: ClassVar[str | None] = "encoding"
    step: float | None = None

    def settled(self, setting: Setting) -> "FrequencyEncoding":
        step = min(1 / 8, 1 / setting.T) if self.step is None else self.step
        if step * (setting.T - 1) >= 1:
            raise ValueError(
                f"fe: step {step:g} leaves no frequency for the last of {setting.T} time steps; "
                f"take a step below 1/{setting.T - 1}"
            )
        return replace(self, step=step)

    def encoder(self) -> str:
        return f"frequency:step={self.step}"

    def extra_passes(self) -> float:
        return 0.1


@searched(step=Range(0.02, 0.125))
def fe(step: float | None = None) -> Defense:
    """Frequency encoding: later time steps are shown smoother images. Attacks go through it.

    Source: FEEL-SNN (Xu et al., NeurIPS 2024); with a learnt leak in every neuron (`el`) it is that paper's network.

    Args:
        step: share of the spectrum that each time step loses, in (0, 1/(T-1)). None is 1/8, the paper's on 32 pixels
            (half-widths 16, 14, 12, 10), and 1/T for more than 8 steps. Its Tiny-ImageNet networks have 1/16.

    Raises:
        ValueError: a step that is not positive; one that leaves the last time step nothing, see `settled`.
    """
    if step is not None and not step > 0:
        raise ValueError(f"fe: step must be positive, got {step}")
    return Defense("fe", (FrequencyEncoding(step),))
