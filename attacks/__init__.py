"""Attacks: pure functions that propose inputs. Clipping is exact; scoring is the harness's business, never theirs."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attacks.base import Attack, Candidate, Path
    from attacks.gradients import frozen, input_gradient
    from attacks.losses import margin
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
    "frozen",
    "input_gradient",
    "margin",
    "parse_eps",
]

_HOMES = {
    "attacks.base": ("Attack", "Candidate", "Path"),
    "attacks.gradients": ("frozen", "input_gradient"),
    "attacks.losses": ("margin",),
    "attacks.projections": ("L2Ball", "LinfBall", "ball"),
    "attacks.threat": ("Threat", "parse_eps"),
}


def __getattr__(name: str) -> Any:
    # torch takes a second to load, which a command that only writes a budget (`attacks.threat`) should not.
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'attacks' has no attribute '{name}'")
