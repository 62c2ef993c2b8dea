"""Runs a cell's attack on a chunk of test images, with the random numbers that are the cell's own."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from attacks.base import Attack, Path
from attacks.combinators import restarted
from bench.arithmetic import computing
from bench.errors import BenchError, describe, is_out_of_memory
from bench.hygiene import Snapshot
from bench.registry import ATTACKS
from bench.resolve import attack_arguments, parse_gradient, threat_of
from bench.runtime import isolated_generator
from bench.spec import CellSpec, randomness_key
from models.random import CounterRNG, derive_key, noise_stream

Proposal = TypeVar("Proposal")

CHUNK = 128
"""Images per stored chunk. Fixed, so that an interrupted run resumes on the same boundaries."""


def propose(model: nn.Module, x: Tensor, y: Tensor, start: int, cells: Sequence[CellSpec]) -> Path:
    """What one run of the attack proposes for a chunk, at the step count of every cell that it serves.

    An attack may be anyone's code. It gets copies of the images and a generator that only it uses, and a
    model that it changed is put back as it was.

    Args:
        model: the network under attack.
        x: the chunk's images [N, *].
        y: their labels [N].
        start: index of the first in the test set, a multiple of `CHUNK`.
        cells: cells of one `trajectory_key`.

    Raises:
        BenchError: the attack failed, changed the model, or left out a step count.
    """
    first = cells[0]
    attack: Attack = ATTACKS.get(first.attack.family)
    threat = threat_of(first.attack)
    samples = torch.arange(start, start + len(x), device=x.device)
    steps = {"steps": tuple(sorted({cell.attack.steps for cell in cells}))} if attack.takes_steps else {}

    def work(key: int) -> Path:
        return restarted(
            attack,
            first.attack.restarts,
            model,
            x.clone(),
            y.clone(),
            threat,
            rng=CounterRNG(key, samples.clone()),
            gradient=parse_gradient(threat.surrogate) if threat.surrogate else None,
            eot=first.attack.eot,
            **steps,
            **attack_arguments(first.attack),
        )

    path = carefully(model, first, samples, work)
    for cell in cells:
        if cell.attack.steps not in path:
            raise BenchError(f"attack '{cell.attack.name}' returned no candidate for step {cell.attack.steps}")
    return path


def carefully(model: nn.Module, cell: CellSpec, samples: Tensor, work: Callable[[int], Proposal]) -> Proposal:
    """Let an attack work where it can do no harm.

    Args:
        model: the network under attack; put back as it was.
        cell: whose attack it is.
        samples: numbers of the test inputs under attack, [N], the first a multiple of `CHUNK` or within a chunk.
        work: runs the attack, given the key of its random numbers.

    Returns:
        what `work` does.

    Raises:
        BenchError: the attack failed or changed the model.
    """
    attack: Attack = ATTACKS.get(cell.attack.family)
    attack_key = derive_key(randomness_key(cell), "attack")
    noise_key = derive_key(randomness_key(cell), "attack noise")
    before, found, problem = Snapshot(model), None, None
    with (
        isolated_generator(samples.device, derive_key(attack_key, int(samples[0]))),
        nullcontext() if attack.own_batches else noise_stream(model, noise_key, samples),
        computing(model, cell.attack.arithmetic, samples.device),
    ):
        try:
            found = work(attack_key)
        except (Exception, SystemExit) as error:
            problem = error
    if changed := before.restore():
        raise BenchError(
            f"attack '{cell.attack.name}' changed the model it attacks ({', '.join(changed[:3])}); "
            "the model was put back as it was"
        )
    if problem is not None and is_out_of_memory(problem):
        raise problem
    if problem is not None:
        raise BenchError(f"attack '{cell.attack.name}' failed: {describe(problem)}") from problem
    assert found is not None
    return found
