"""Official AutoAttack, as its authors' code runs it."""

import importlib.util
import json
from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

import torch
from torch import Tensor, nn

from attacks.base import Attack, per_sample
from attacks.external.hosting import View, hosted, load, seed_of
from attacks.gradients import frozen
from attacks.projections import ball
from attacks.threat import Threat
from models.random import CounterRNG

MODULES = ("pyautoattack", "autoattack")
VERSIONS = ("standard", "plus")


def autoattack(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, rng: CounterRNG, version: str = "standard"
) -> Tensor:
    """APGD-CE, targeted APGD-DLR, targeted FAB and Square, one after the other on the images still standing.

    The code is the authors', from PyPI (`pyautoattack`) or else from GitHub (`autoattack`), which differ in their
    interface but not in what they compute. Deterministic networks only: its decisions rest on single forward passes,
    so on a network with noise it counts luck as success (see `autoattack-rand`). Two more things to know on spiking
    networks: its DLR loss divides by the gap of the logits + 1e-12, so that ties of spike counts give gradients of
    1e12 there; and CE and DLR see the logits only, so a surrogate that vanishes blinds all but Square.
    What it returns is projected once more, because its float32 clipping leaves the ball by an ulp; an example
    that lay exactly on the decision boundary may return to the right side by that.

    Source: Croce and Hein, arXiv 2003.01690. With fewer than 10 classes there are K - 1 targets instead of 9.
    Cost for an image that stands to the end, `standard`: about 7,800 forwards and 1,900 backwards, of which
    5,000 forwards are Square's.

    Args:
        model: maps [N, C, H, W] to logits [N, K], K >= 4, deterministic.
        x: clean inputs [N, C, H, W] in [0, 1]. It computes in float32.
        y: true labels [N].
        threat: linf or l2 in the box [0, 1].
        rng: only its key and its samples are used, as the seed of the batch.
        version: `standard`, or `plus` (5 restarts, and the untargeted attacks too).

    Returns:
        x_adv [N, C, H, W], inside the ball and the box in float64; x itself where no attack succeeded.

    Raises:
        ValueError: no AutoAttack is installed, another version, another box, or fewer than 4 classes.
    """
    if version not in VERSIONS:
        mend = "; for noisy networks use autoattack-rand" if version == "rand" else ""
        raise ValueError(f"unknown version '{version}'; choose from {', '.join(VERSIONS)}{mend}")
    if x.dim() != 4:
        raise ValueError(f"official AutoAttack knows images [N, C, H, W] only, got {list(x.shape)}")
    if (threat.low, threat.high) != (0.0, 1.0):
        raise ValueError(f"official AutoAttack knows images in [0, 1] only, not [{threat.low:g}, {threat.high:g}]")
    if threat.eps == 0:
        return x.clone(memory_format=torch.preserve_format)
    narrow = x.detach().float()
    with frozen(model), hosted(seed_of(rng)):
        view = View(model, x)
        classes = view.classes(narrow)
        if classes < 4:
            raise ValueError(
                f"official AutoAttack needs 4 classes for its targeted DLR loss and the network has {classes}; "
                "use apgd100:loss=margin and square5000"
            )
        found = _run(view, narrow, y, threat, version, classes, seed_of(rng))
    x_adv = ball(x, threat).project(found.to(x.dtype))
    return torch.where(per_sample((found != narrow).flatten(1).any(1), x), x_adv, x)


def _run(view: View, x: Tensor, y: Tensor, threat: Threat, version: str, classes: int, seed: int) -> Tensor:
    name = module_name()
    norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
    common = {"norm": norm, "eps": float(threat.eps), "seed": seed, "version": version, "device": x.device}
    if name == "pyautoattack":
        attack = _bounded(load(name).AutoAttack(view, **common), classes)
        x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=len(x))
    else:
        attack = _bounded(load(name).AutoAttack(view, verbose=False, **common), classes)
        x_adv = attack.run_standard_evaluation(x, y, bs=len(x))
    found: Tensor = x_adv.detach()
    return found


def _bounded(attack: Any, classes: int) -> Any:
    """No more targets than there are wrong classes: one more is an IndexError."""
    for member in (attack.apgd_targeted, attack.fab):
        member.n_target_classes = min(member.n_target_classes, classes - 1)
    return attack


def module_name() -> str:
    """The installed module that does the work; the one with releases first.

    Raises:
        ValueError: none is installed.
    """
    for name in MODULES:
        if importlib.util.find_spec(name) is not None:
            return name
    raise ValueError("official AutoAttack is not installed; pip install pyautoattack")


def backend() -> str:
    """Which code does the work: `pyautoattack 0.2.0`, or with the commit where pip knows one.

    Raises:
        ValueError: none is installed.
    """
    name = module_name()
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return f"{name} of unknown version"
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id", "")
    return " ".join(filter(None, [name, installed.version, commit]))


AUTOATTACK = Attack(
    autoattack,
    "official AutoAttack (APGD-CE, APGD-T, FAB-T, Square), deterministic networks only",
    defaults={"version": "standard"},
    cost=lambda steps: (7_800, 1_900),
    deterministic_only=True,
    images_only=True,
    least_classes=4,
    own_batches=True,
    backend=backend,
)
