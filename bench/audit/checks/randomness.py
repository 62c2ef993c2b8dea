"""A noisy network: is the attack's gradient a mean, and is the score one?"""

import numpy as np

from attacks.losses import margin
from bench.audit.finding import OK, SUSPECT, Finding
from bench.audit.lab import DRAWS, Lab
from bench.audit.paired import broken_more
from bench.statistics import wilson
from models.random import derive_key

EOT = 0.05
_DRAWS = 8


def eot(lab: Lab) -> Finding:
    """The mean gradient over eight draws of the noise against a single draw."""
    if not lab.stochastic:
        return Finding("eot", OK, None, EOT, "deterministic: there is nothing to average over")
    return broken_more(
        "eot",
        lab.stands(f"pgd20:eot={_DRAWS}"),
        lab.stands("pgd20"),
        EOT,
        f"gradients averaged over {_DRAWS} draws against one draw",
        f"gradients averaged over {_DRAWS} draws break more images than one draw: use --eot {_DRAWS} or more",
    )


def fresh_noise(lab: Lab) -> Finding:
    """Clean accuracy under other draws of the noise lies in the interval of the scoring draws."""
    first = float(lab.outcome("clean").clean.mean())
    rights = []
    for draw in range(DRAWS if lab.stochastic else 1):
        right = margin(lab.logits(key=derive_key("fresh", draw)), lab.y) < 0
        rights.append(right.cpu().numpy())
    second = float(np.mean(rights))
    rate = wilson(first * lab.spec.n, lab.spec.n)
    limit = max(rate.value - rate.low, rate.high - rate.value) if lab.stochastic else 0.05
    gap = abs(second - first)
    says = f"clean accuracy {first:.1%}, and {second:.1%} under fresh noise"
    return Finding("fresh noise", SUSPECT if gap > limit else OK, gap, limit, says)
