"""Threshold-guarding optimisation: the membrane constraint and noisy neurons together."""

from defenses.base import Defense
from defenses.mc import mc
from defenses.nlif import nlif
from defenses.search import Range, searched


@searched(lam_max=Range(0.05, 2, log=True), delta=Range(0.1, 1), noise_var=Range(0.02, 1, log=True))
def tgo(lam_max: float | None = None, delta: float = 0.5, penalty: str = "linear", noise_var: float = 0.4) -> Defense:
    """TGO = mc + nlif.

    Source: "Robust Spiking Neural Networks Against Adversarial Attacks" (TGO), section 4.

    Args:
        lam_max, delta, penalty: as `mc`.
        noise_var: as `nlif`.
    """
    return Defense("tgo", (mc(lam_max, delta, penalty) + nlif(noise_var)).parts)
