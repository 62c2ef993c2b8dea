"""The trained networks that attacks are compared on, by way of an ordinary run without attack."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from bench.cli.display import Display
from bench.errors import BenchError
from bench.evidence.stored import stored_network
from bench.plan import Plan, TrainJob
from bench.scheduler import run_plan
from bench.store import Store


def trained(clean: Plan, store: Store, checkpoints: Path, device: torch.device) -> Callable[[TrainJob], nn.Module]:
    """Train what is missing, as `bench run` would, and give access to the networks.

    Args:
        clean: a plan of the networks with the attack `clean` alone.
        store: where the runs are recorded.
        checkpoints: folder of trained weights.
        device: where to compute.

    Returns:
        from a job to its network.

    Raises:
        BenchError: a network cannot be trained, or leaks state.
    """
    clean = clean.known_to(store)
    with Display(clean) as display:
        report = run_plan(clean, store, checkpoints, device, display)
    if report.failures:
        raise BenchError(report.failures[0])
    cells = {job.weights_key: job.cells[0] for job in clean.jobs}
    files = {job.weights_key: job.weights_file for job in clean.jobs}

    def network(job: TrainJob) -> nn.Module:
        cell, file = cells[job.weights_key], files[job.weights_key]
        # It is the plan that named it, not the store.
        return stored_network(cell, store, checkpoints, device, file, cell.model.name)

    return network
