"""AutoAttack by its authors, and its members on their own."""

import importlib.util
from typing import Any

from torch import Tensor

from bench.peers.adapter import Arena, Peer, load

_MODULES = ("pyautoattack", "autoattack")
_TARGETS = 9


def _module() -> str:
    return next(name for name in _MODULES if importlib.util.find_spec(name) is not None)


def _settings(arena: Arena) -> dict[str, Any]:
    return {"norm": "Linf", "eps": arena.eps, "seed": arena.seed, "device": arena.x.device}


def apgd(arena: Arena) -> Tensor:
    """`APGDAttack` on the cross-entropy, one random start."""
    kind = load(f"{_module()}.autopgd_base").APGDAttack
    attack = kind(arena.model, n_iter=arena.steps, loss="ce", **_settings(arena))
    found: Tensor = attack.perturb(arena.x, arena.y)
    return found


def targeted(arena: Arena) -> Tensor:
    """`APGDAttack_targeted`: APGD on the targeted DLR loss, towards every other class, 9 at most."""
    kind = load(f"{_module()}.autopgd_base").APGDAttack_targeted
    targets = min(_TARGETS, arena.classes - 1)
    attack = kind(arena.model, n_iter=arena.steps, n_target_classes=targets, **_settings(arena))
    found: Tensor = attack.perturb(arena.x, arena.y)
    return found


def standard(arena: Arena) -> Tensor:
    """Version `standard`: APGD-CE, APGD-T, FAB-T and Square with 100, 100, 100 and 5000 steps."""
    name = _module()
    quiet = {} if name == "pyautoattack" else {"verbose": False}
    attack = load(name).AutoAttack(arena.model, version="standard", **_settings(arena), **quiet)
    for member in (attack.apgd_targeted, attack.fab):
        member.n_target_classes = min(member.n_target_classes, arena.classes - 1)
    if name == "pyautoattack":
        found: Tensor = attack.run_standard_evaluation(arena.x, arena.y, batch_size=len(arena.x))[0]
    else:
        found = attack.run_standard_evaluation(arena.x, arena.y, bs=len(arena.x))
    return found


AUTOATTACK = Peer("official", "pyautoattack", _MODULES, {"apgd": apgd, "mtpgd": targeted, "autoattack": standard})
