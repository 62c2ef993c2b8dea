"""Cells and stores to write into."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from bench.spec import AttackSpec, CellSpec, ModelSpec
from bench.store import Store
from models.neurons import NeuronSpec


def make_cell(steps: int = 7, n: int = 300, draws: int = 1, weights: str = "train:abc") -> CellSpec:
    """A cell that nothing measured."""
    model = ModelSpec("cnn-small", 10, (1, 8, 8), 4, NeuronSpec(), (0.3,), (0.4,))
    params = (("alpha", Fraction(1, 100)),)
    attack = AttackSpec("pgd", steps, params, 1, 1, "linf", Fraction(8, 255), 0.0, 1.0, None, f"pgd{steps}")
    return CellSpec(weights, model, "hash", n, attack, draws, 0, "digits", "vanilla", 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "bench.sqlite")
    yield opened
    opened.close()
