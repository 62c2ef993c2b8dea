"""How long a plan will take on this machine."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from attacks.base import Attack
from attacks.gradients import frozen, input_gradient
from attacks.losses import cross_entropy
from bench.data.dataset import Dataset, pixels
from bench.plan import Plan, TrainJob
from bench.provenance import device_name
from bench.registry import ATTACKS
from bench.spec import CellSpec, identity_of, key_of
from bench.store import Store
from bench.training import build_without_rng
from defenses.base import Defense


@dataclass(frozen=True)
class Estimate:
    """Seconds that a plan's missing part should take, and whether stored runs back it or a short trial."""

    seconds: float
    basis: str


def estimate(plan: Plan, store: Store | None, device: torch.device) -> Estimate:
    """How long the missing cells will take on this machine.

    The cost of one image's forward and backward pass comes from finished cells
    of the same network in the store, else from a trial of a second.
    """
    known = store.costs(device_name(device)) if store else []
    seconds, basis = 0.0, "stored runs"
    trials: dict[str, float] = {}
    stored: dict[str, float | None] = {}
    for job in plan.jobs:
        groups = [group for group in job.trajectories if any(key_of(c) not in plan.stored for c in group)]
        if not groups:
            continue
        key = key_of(job.spec.model)
        if key not in stored:
            identity = identity_of(job.spec.model)
            stored[key] = next((_per_pass(*cost) for model, *cost in known if model == identity), None)
        per_pass = stored[key]
        if per_pass is None:
            if key not in trials:
                trials[key] = _trial(job, plan.dataset, device)
            per_pass, basis = trials[key], "a short trial"
        for group in groups:
            forwards, backwards = attack_cost(group)
            scoring = group[0].draws * 2 * (1 + len(group))
            seconds += group[0].n * per_pass * (backwards + (forwards - backwards + scoring) / 3)
        if not job.trained:
            recipe = job.spec.recipe
            images = ((recipe.train_size or len(plan.dataset.x_train)) - recipe.holdout) * recipe.epochs
            seconds += images * per_pass * (1.3 + training_passes(job.defense))
    return Estimate(seconds, basis)


def _per_pass(forwards: float, backwards: float, seconds: float) -> float:
    """Seconds for one image's forward and backward pass; a forward alone takes a third of that."""
    return seconds / (backwards + max(forwards - backwards, 0) / 3)


def training_passes(defense: Defense) -> float:
    """Forward and backward passes per image and epoch beyond the vanilla one."""
    return sum(part.extra_passes() for part in defense.parts)


def _trial(job: TrainJob, dataset: Dataset, device: torch.device) -> float:
    model = build_without_rng(job.spec).to(device).to(memory_format=torch.channels_last)
    x = pixels(dataset.x_test[:64], device)
    y = dataset.y_test[:64].to(device)
    times = []
    with frozen(model):
        for _ in range(3):
            began = time.perf_counter()
            input_gradient(model, x, y, cross_entropy)
            times.append(time.perf_counter() - began)
            if sum(times) > 1:
                break
    return min(times) / len(x)


def attack_cost(cells: Sequence[CellSpec]) -> tuple[int, int]:
    """(forward, backward) passes per image of the attack run that serves these cells, without scoring."""
    attack: Attack = ATTACKS.get(cells[0].attack.family)
    forwards, backwards = attack.cost(max(cell.attack.steps for cell in cells))
    runs = cells[0].attack.restarts * cells[0].attack.eot
    return forwards * runs, backwards * runs
