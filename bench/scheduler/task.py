"""What a plan is cut into: trainings, and attack runs on what was trained."""

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.errors import BenchError, describe
from bench.plan import Plan, TrainJob
from bench.scheduler.work import called
from bench.spec import CellSpec, key_of


@dataclass(frozen=True)
class Task:
    """What one worker does in one go.

    Attributes:
        number: position in the plan.
        job: the network; its cells are left out, so that a task is small to send.
        cells: that one attack run serves; none for a training.
        seconds: that it should take.
        batch: images at once, where a worker that tried more was killed.
        turn: tasks of a smaller one come first, see `Plan.turns`.
    """

    number: int
    job: TrainJob
    cells: tuple[CellSpec, ...]
    seconds: float
    batch: int | None = None
    turn: int = 0

    @property
    def keys(self) -> list[str]:
        """What a worker takes on with it: its cells, or the weights that it trains."""
        return [key_of(cell) for cell in self.cells] or [self.job.weights_key]

    @property
    def what(self) -> str:
        """In words."""
        spec = self.job.spec
        return called(self.cells) if self.cells else f"{spec.defense_name} (seed {spec.seed})"


@dataclass(frozen=True)
class Result:
    """What came of a task.

    Attributes:
        done: keys of the cells that are finished now, by whomever; `computed` of them by this worker.
        failures: what failed, in words; it is stored. `failed` are the keys of its cells.
        broken: the network itself cannot be had, so that no attack on it can run.
        held: another worker has some of it; it is to be asked for again later.
        stopped: it was asked to leave the rest for another time.
        seconds: that it took.
        forwards: passes through the network, in images.
    """

    done: frozenset[str] = frozenset()
    computed: int = 0
    failures: tuple[str, ...] = ()
    failed: frozenset[str] = frozenset()
    broken: bool = False
    held: bool = False
    stopped: bool = False
    seconds: float = 0.0
    forwards: int = 0


def tasks_of(
    plan: Plan, of_training: Callable[[TrainJob], float], of_attack: Callable[[TrainJob, Sequence[CellSpec]], float]
) -> list[Task]:
    """The tasks that a plan's missing cells need, in the plan's order; a training before its attacks.

    Args:
        plan: known to the store.
        of_training, of_attack: seconds that they should take.
    """
    tasks: list[Task] = []
    for job in plan.jobs:
        groups = [tuple(cell for cell in group if key_of(cell) not in plan.stored) for group in job.trajectories]
        groups = [group for group in groups if group]
        if not groups:
            continue
        bare = replace(job, trajectories=())
        turns = [min(plan.turns.get(key_of(cell), 0) for cell in group) if plan.turns else 0 for group in groups]
        if not job.trained:
            tasks.append(Task(len(tasks), bare, (), of_training(job), turn=min(turns)))
        for group, turn in zip(groups, turns, strict=True):
            tasks.append(Task(len(tasks), bare, group, of_attack(job, group), turn=turn))
    return tasks


def check_sendable(tasks: Sequence[Task]) -> None:
    """Find out before the first worker starts whether what it is to do can be sent to it.

    Raises:
        BenchError: a part of somebody's own cannot be.
    """
    for job in {task.job.network_key: task.job for task in tasks}.values():
        try:
            pickle.dumps(job)
        except Exception as error:
            raise BenchError(
                f"'{job.spec.defense_name}' cannot be sent to worker processes ({describe(error)}): define its classes "
                "at the top of the plug-in's file, or use --workers 1"
            ) from error
