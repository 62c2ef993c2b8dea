"""What tests import: the environment of child processes, a cell that nothing measured."""

import os
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from bench.spec import AttackSpec, CellSpec, ModelSpec
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
