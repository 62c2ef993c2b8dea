"""Torchattacks."""

from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from torch import Tensor

from bench.peers.adapter import Arena, Peer, load


def _run(arena: Arena, name: str, **settings: Any) -> Tensor:
    kind = getattr(load("torchattacks"), name)
    with redirect_stdout(StringIO()):
        # It prints that it cannot see the device of a model without weights, which is told it next.
        attack = kind(arena.model, eps=arena.eps, steps=arena.steps, **settings)
    attack.set_device(arena.x.device)
    found: Tensor = attack(arena.x, arena.y)
    return found


def pgd(arena: Arena) -> Tensor:
    """`PGD` from the image itself."""
    return _run(arena, "PGD", alpha=arena.alpha, random_start=False)


def apgd(arena: Arena) -> Tensor:
    """`APGD` on the cross-entropy, one random start."""
    return _run(arena, "APGD", n_restarts=1, seed=arena.seed, loss="ce")


def targeted(arena: Arena) -> Tensor:
    """`APGDT`: APGD on the targeted DLR loss, towards every other class."""
    return _run(arena, "APGDT", n_restarts=1, seed=arena.seed, n_classes=arena.classes)


TORCHATTACKS = Peer("torchattacks", "torchattacks", ("torchattacks",), {"pgd": pgd, "apgd": apgd, "mtpgd": targeted})
