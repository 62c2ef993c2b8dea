"""Adversarial training at the eps of the test."""

from fractions import Fraction

from defenses.at import at
from defenses.base import Defense
from defenses.search import Choice, searched


@searched(eps=Choice(("4/255", "8/255", "12/255")))
def at8(eps: Fraction = Fraction(8, 255), steps: int = 10, alpha: Fraction = Fraction(2, 255)) -> Defense:
    """Adversarial training on l_inf PGD-10 examples at eps 8/255, alpha 2/255, random start.

    The lineage trains at 2/255 and tests at 8/255, which makes its AT baseline weak by construction; this is the
    baseline that the attack's own eps asks for.

    Source: Madry et al., ICLR 2018 (7 steps of 2/255 on CIFAR-10); trained at this eps are also the networks of Towards
    Reliable Evaluation of Adversarial Robustness for SNNs, arXiv 2512.22522 (5 steps).

    Args:
        eps: training budget in pixel units, of frames in units of their scale.
        steps: PGD steps for each training example.
        alpha: step size in the same units.

    Raises:
        ValueError: as `at`.
    """
    return Defense("at8", at(eps, steps, alpha).parts, strategy=True)
