"""A stored cell's attack, run again for its images instead of its outcome."""

from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from attacks.base import Attack
from attacks.combinators import restarted
from bench.evaluation import CHUNK
from bench.hygiene import Snapshot
from bench.registry import ATTACKS
from bench.resolve import attack_arguments, parse_gradient, threat_of
from bench.runtime import isolated_generator
from bench.spec import CellSpec, randomness_key
from models.random import CounterRNG, derive_key, noise_stream


def at_budget(cell: CellSpec, eps: Fraction) -> CellSpec:
    """The cell with another budget; a step size in its attack's parameters is scaled with it."""
    attack = cell.attack
    if eps == attack.eps:
        return cell
    params = tuple(
        (key, value * eps / attack.eps if key == "alpha" and attack.eps and isinstance(value, Fraction) else value)
        for key, value in attack.params
    )
    return replace(cell, attack=replace(attack, eps=eps, params=params))


def attacked_images(model: nn.Module, x: Tensor, y: Tensor, cell: CellSpec) -> Tensor:
    """The last iterate of the cell's attack on the first test images, with the random numbers of its stored run.

    The images are those that `bench.evaluation.evaluate` scored, but for attacks that make batches of their own
    (`Attack.own_batches`), whose random numbers depend on how many images there are. Cost: the attack's.

    Args:
        model: the cell's network; put back as it was.
        x: the first test images [N, *], N <= cell.n.
        y: their labels [N].
        cell: what was measured.
    """
    attack: Attack = ATTACKS.get(cell.attack.family)
    threat = threat_of(cell.attack)
    gradient = parse_gradient(threat.surrogate) if threat.surrogate else None
    attack_key = derive_key(randomness_key(cell), "attack")
    noise_key = derive_key(randomness_key(cell), "attack noise")
    steps = {"steps": (cell.attack.steps,)} if attack.takes_steps else {}
    before = Snapshot(model)
    made = []
    for start in range(0, len(x), CHUNK):
        part = slice(start, min(start + CHUNK, len(x)))
        samples = torch.arange(part.start, part.stop, device=x.device)
        with (
            isolated_generator(x.device, derive_key(attack_key, start)),
            nullcontext() if attack.own_batches else noise_stream(model, noise_key, samples),
        ):
            try:
                path = restarted(
                    attack,
                    cell.attack.restarts,
                    model,
                    x[part].clone(),
                    y[part].clone(),
                    threat,
                    rng=CounterRNG(attack_key, samples),
                    gradient=gradient,
                    eot=cell.attack.eot,
                    **steps,
                    **attack_arguments(cell.attack),
                )
            finally:
                before.restore()
        made.append(path[cell.attack.steps].last.detach())
    return torch.cat(made)
