"""Attacks: pure functions that propose inputs. Clipping is exact; scoring is the harness's business, never theirs."""

from attacks.base import Attack, Candidate, Path
from attacks.fgsm import fgsm, rfgsm
from attacks.gradients import frozen, input_gradient
from attacks.losses import margin
from attacks.pgd import pgd
from attacks.projections import L2Ball, LinfBall, ball
from attacks.threat import Threat, parse_eps

__all__ = [
    "Attack",
    "Candidate",
    "L2Ball",
    "LinfBall",
    "Path",
    "Threat",
    "ball",
    "fgsm",
    "frozen",
    "input_gradient",
    "margin",
    "parse_eps",
    "pgd",
    "rfgsm",
]
