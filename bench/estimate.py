"""How long a plan will take on this machine."""

from dataclasses import dataclass

import torch

from bench.costs import Costs, Load, makespan
from bench.plan import Plan
from bench.spec import key_of
from bench.store import Store


@dataclass(frozen=True)
class Estimate:
    """Seconds that a plan's missing part should take, and whether stored runs back it or a short trial.

    Attributes:
        seconds: in all.
        basis: in words.
        training: of those, of all networks together, whatever runs beside them.
        attacking: of those, of all attack runs together.
    """

    seconds: float
    basis: str
    training: float = 0.0
    attacking: float = 0.0

    def __add__(self, other: "Estimate") -> "Estimate":
        """One plan after the other."""
        bases = dict.fromkeys([*self.basis.split(" and "), *other.basis.split(" and ")])
        return Estimate(
            self.seconds + other.seconds, " and ".join(bases), self.training + other.training,
            self.attacking + other.attacking,
        )  # fmt: skip


def estimate(
    plan: Plan,
    store: Store | None,
    device: torch.device,
    workers: int = 1,
    *,
    threads: int | None = None,
    start: float = 0.0,
) -> Estimate:
    """How long the missing cells will take on this machine.

    Args:
        plan: with what is stored already, see `Plan.known_to`.
        store: what to learn from.
        device: where it will run.
        workers: processes that share the work.
        threads: of each; torch's present number if None.
        start: seconds until the first of them can begin.
    """
    costs = Costs(plan, store, device, threads)
    found = []
    for job in plan.jobs:
        groups = [group for group in job.trajectories if any(key_of(cell) not in plan.stored for cell in group)]
        if groups:
            attacks = (costs.attack(job, group) for group in groups)
            found.append(Load(costs.training(job), (costs.opening(job), *attacks)))
    seconds = makespan(found, workers)
    if any(load.training for load in found):
        # Workers that train all begin with it, at the same time.
        seconds += costs.first
    basis = " and ".join(sorted(costs.bases, reverse=True)) or "stored runs"
    training, attacking = (sum(load.training for load in found), sum(sum(load.attacks) for load in found))
    return Estimate(seconds + (start if found else 0.0), basis, training, attacking)
