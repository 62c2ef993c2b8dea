"""The Adversarial Robustness Toolbox."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.peers.adapter import Arena, Peer, load


def _classifier(arena: Arena) -> Any:
    return load("art.estimators.classification").PyTorchClassifier(
        arena.model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(arena.x.shape[1:]),
        nb_classes=arena.classes,
        clip_values=(arena.threat.low, arena.threat.high),
        device_type="gpu" if arena.x.is_cuda else "cpu",
    )


def _generate(arena: Arena, attack: Any) -> Tensor:
    one_hot = np.eye(arena.classes, dtype=np.float32)[arena.y.cpu().numpy()]
    found = attack.generate(arena.x.cpu().numpy(), one_hot)
    return torch.from_numpy(found).to(arena.x.device, arena.x.dtype)


def pgd(arena: Arena) -> Tensor:
    """`ProjectedGradientDescentPyTorch` from the image itself."""
    kind = load("art.attacks.evasion").ProjectedGradientDescentPyTorch
    budget = {"eps": arena.eps, "eps_step": arena.alpha, "max_iter": arena.steps}
    attack = kind(_classifier(arena), **budget, num_random_init=0, batch_size=len(arena.x), verbose=False)
    return _generate(arena, attack)


def apgd(arena: Arena) -> Tensor:
    """`AutoProjectedGradientDescent` on the cross-entropy, one random start, first step 2 eps."""
    kind = load("art.attacks.evasion").AutoProjectedGradientDescent
    budget = {"eps": arena.eps, "eps_step": 2 * arena.eps, "max_iter": arena.steps}
    settings = {"nb_random_init": 1, "loss_type": "cross_entropy", "batch_size": len(arena.x), "verbose": False}
    return _generate(arena, kind(_classifier(arena), **budget, **settings))


ART = Peer("ART", "adversarial-robustness-toolbox", ("art",), {"pgd": pgd, "apgd": apgd}, any_box=True, frames=True)
