"""Attacks on the function that truth is about: the float64 network without noise, on float64 images."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from bench.data.dataset import Dataset
from bench.errors import BenchError, describe
from bench.evaluation import evaluate
from bench.plan import TrainJob
from bench.resolve import parse_attack
from bench.spec import CellSpec, ModelSpec, key_of, trajectory_key
from bench.store import Store


def quiet(model: ModelSpec) -> ModelSpec:
    """The same architecture with plain neurons: what a noisy network is without its noise."""
    return replace(model, neuron=replace(model.neuron, kind="lif", params=()))


def cells_of(job: TrainJob, dataset: Dataset, attacks: Sequence[str], eps: str, attack_seed: int) -> list[CellSpec]:
    """One cell an attack, in the order given; told apart from those of `bench run` by dtype and neuron.

    Args:
        job: the network.
        dataset: its data.
        attacks: as typed.
        eps: budget, as typed.
        attack_seed: selects the attacks' random numbers.

    Raises:
        BenchError: an attack that cannot be read, or does not work in l_inf.
    """
    [base, *_] = job.cells
    return [
        replace(
            base,
            model=quiet(base.model),
            # Means over noise draws are pointless where there is no noise.
            attack=replace(parse_attack(text, eps), eot=1),
            draws=1,
            attack_seed=attack_seed,
            dtype="float64",
            defense_name=f"{base.defense_name} (float64, no noise)",
            test_hash=dataset.test_hash,
        )
        for text in attacks
    ]


def attack_cells(
    model: nn.Module,
    dataset: Dataset,
    cells: Sequence[CellSpec],
    store: Store,
    run: int,
    advance: Callable[[str], None] = lambda name: None,
) -> dict[CellSpec, str]:
    """Measure the cells that the store lacks; returns what failed, by cell.

    Args:
        model: `noise_off` of the network.
        dataset: its test images are attacked.
        cells: of one network.
        store: holds the network's weights already.
        run: id of the invocation.
        advance: told an attack's name before it runs.
    """
    known = store.done(key_of(cell) for cell in cells)
    wide = _in_float64(dataset)
    groups: dict[tuple[str, frozenset[int]], list[CellSpec]] = {}
    for cell in dict.fromkeys(cells):
        if key_of(cell) not in known:
            groups.setdefault((trajectory_key(cell), store.begin_cell(cell, run)), []).append(cell)
    failures = {}
    for (_, done), group in groups.items():
        advance(", ".join(cell.attack.name for cell in group))
        began = time.perf_counter()
        try:
            for result in evaluate(model, wide, group, device=torch.device("cpu"), done=done):
                seconds = time.perf_counter() - began
                store.add_chunks(result.start, result.outcomes, result.forwards, result.backwards, seconds)
                began = time.perf_counter()
            for cell in group:
                store.finish_cell(cell)
        except BenchError as error:
            for cell in group:
                store.fail_cell(cell, describe(error))
                failures[cell] = describe(error)
    return failures


def _in_float64(dataset: Dataset) -> Dataset:
    """The dataset with the same test images in float64, which a `Dataset` does not store."""
    wide = copy.copy(dataset)
    object.__setattr__(wide, "x_test", dataset.pixels(dataset.x_test).double())
    return wide
