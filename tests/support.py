"""What tests import: the environment of child processes, a cell that nothing measured, small networks."""

import os
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.spec import AttackSpec, CellSpec, ModelSpec
from models.cnn import SpikingCNN
from models.neurons import NeuronSpec

ROOT = Path(__file__).resolve().parent.parent
Run = Callable[..., subprocess.CompletedProcess[str]]


def environment() -> dict[str, str]:
    """The environment of a child process: this checkout importable, one thread."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def make_cell(steps: int = 7, n: int = 300, draws: int = 1, weights: str = "train:abc") -> CellSpec:
    """A cell that nothing measured."""
    model = ModelSpec("cnn-small", 10, (1, 8, 8), 4, NeuronSpec(), (0.3,), (0.4,))
    params = (("alpha", Fraction(1, 100)),)
    attack = AttackSpec("pgd", steps, params, 1, 1, "linf", Fraction(8, 255), 0.0, 1.0, None, f"pgd{steps}")
    return CellSpec(weights, model, "hash", n, attack, draws, 0, "digits", "vanilla", 0)


def spiking_net(
    neuron: NeuronSpec | None = None, *, T: int = 2, classes: int = 4, dtype: torch.dtype = torch.float32
) -> SpikingCNN:
    """A two-layer spiking network on images [N, 1, 8, 8], in eval mode, the same weights each time."""
    spec = neuron or NeuronSpec()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SpikingCNN(classes, 1, (8, 8), (1, 2), spec.build, T=T, mean=(0.5,), std=(0.25,))
    # Fresh weights barely reach the threshold; a silent network would make every comparison empty.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 4.0)
    return model.to(dtype).eval()


def images(n: int, *shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random images [n, *shape] (by default [n, 1, 8, 8]) whose pixels are multiples of 1/256.

    With a dyadic eps and alpha, every sum of steps is then exact in float32.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 257, (n, *(shape or (1, 8, 8))), generator=generator).to(dtype) / 256


def labels(n: int, classes: int = 4, seed: int = 2) -> Tensor:
    """Random labels [n]."""
    return torch.randint(0, classes, (n,), generator=torch.Generator().manual_seed(seed))
