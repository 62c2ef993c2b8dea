"""Foolbox."""

from torch import Tensor

from bench.peers.adapter import Arena, Peer, load


def pgd(arena: Arena) -> Tensor:
    """`LinfPGD` from the image itself."""
    foolbox = load("foolbox")
    bounds = (arena.threat.low, arena.threat.high)
    model = foolbox.PyTorchModel(arena.model.eval(), bounds=bounds, device=arena.x.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=arena.alpha, steps=arena.steps, random_start=False)
    _, found, _ = attack(model, arena.x, foolbox.criteria.Misclassification(arena.y), epsilons=arena.eps)
    candidates: Tensor = found
    return candidates


FOOLBOX = Peer("foolbox", "foolbox", ("foolbox",), {"pgd": pgd}, any_box=True, frames=True)
