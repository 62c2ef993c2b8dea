"""Signed rate encoding."""

from dataclasses import dataclass
from typing import ClassVar

from defenses.base import Defense, Part, Setting
from defenses.poisson import refuse_counts
from defenses.search import searched


@dataclass(frozen=True)
class SignedRateEncoding(Part):
    """A pixel's distance from the mean is the probability of a spike, of that sign; see `SignedRateEncoder`."""

    name: ClassVar[str] = "signed-rate-encoding"
    slot: ClassVar[str | None] = "encoding"

    def settled(self, setting: Setting) -> "SignedRateEncoding":
        refuse_counts("signed-rate", setting)
        return self

    def encoder(self) -> str:
        return "signed-rate"

    def extra_passes(self) -> float:
        return 0.3


@searched()
def signed_rate() -> Defense:
    """Signed rate encoding: spikes in {-1, 0, 1} around the mean pixel, on photographs with less noise than `poisson`.

    A noisy network: it is attacked and scored with the noise on.

    Source: Mukhoty et al., ICLR 2025. Their mean is an image, here it is one number a channel: the same noise on
    CIFAR-10, more on digits, whose border is black. Their sparse encoding attack on the spikes themselves is not an
    attack on images and is not part of it.
    """
    return Defense("signed-rate", (SignedRateEncoding(),))
