"""Stores to write into and to read from."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from measuring import measure, tiny_request
from postgres import postgres, postgres_server

from bench.store import Store

__all__ = ["postgres", "postgres_server"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "bench.sqlite")
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny_npz: Path) -> Path:
    """A results folder: two deterministic networks and a noisy one, two seeds, three attacks. Read only."""
    results = tmp_path_factory.mktemp("measured")
    attacks = ("clean", "fgsm", "pgd3")
    measure(
        results,
        tiny_request(tiny_npz, defenses=("vanilla", "at", "nlif"), attacks=attacks, seeds=(0, 1), eps=("0.1", "0.2")),
    )
    return results


@pytest.fixture
def results(measured: Path, tmp_path: Path) -> Path:
    """The same, to write into."""
    return Path(shutil.copytree(measured, tmp_path / "results"))


@pytest.fixture
def full(results: Path) -> Iterator[Store]:
    """The store of `results`."""
    opened = Store(results / "bench.sqlite")
    yield opened
    opened.close()
