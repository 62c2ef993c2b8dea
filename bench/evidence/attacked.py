"""A stored cell's attack, run again for its images instead of its outcome."""

from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor, nn

from bench.proposal import CHUNK, propose
from bench.spec import CellSpec


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
    parts = range(0, len(x), CHUNK)
    made = [propose(model, x[i : i + CHUNK], y[i : i + CHUNK], i, [cell])[cell.attack.steps] for i in parts]
    return torch.cat([candidate.last.detach() for candidate in made])
