"""Which task comes next: of the first part the cheap ones, attacks once their network is there; in the end nothing."""

import heapq
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from bench.costs import Load, makespan
from bench.plan import Plan
from bench.proposal import CHUNK
from bench.scheduler.budget import Budget
from bench.scheduler.listener import Listener
from bench.scheduler.task import Result, Task
from bench.spec import key_of
from bench.store import Store

_AGAIN = 1.0
"""Seconds until what another run holds is asked for again."""
KILLED = "workers were killed at it"
"""In the error of what nobody could finish: that says something of the machine, and maybe nothing of the task."""
_ATTEMPTS = 2
"""A task that killed so many workers is not given to another."""


class Dispatcher:
    """Hands out a plan's tasks and keeps count, whoever does them.

    Args:
        plan: known to the store.
        tasks: that it needs, see `tasks_of`.
        store: asked for cells that others finished.
        run: of the command.
        workers: how many there are, for the time left.
        budget: nothing is handed out once it is spent.
        listener: told how far all of it is.

    Attributes:
        failures: in words.
        computed: cells that were finished by these workers.
        stopped: why nothing new begins; empty while something may.
        asked: says whether the campaign was asked from outside to end.
        done, failed: how many cells were finished and cannot be, since the beginning.
    """

    def __init__(
        self,
        plan: Plan,
        tasks: Iterable[Task],
        store: Store,
        run: int,
        workers: int,
        budget: Budget,
        listener: Listener,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store, self.run, self.workers, self.budget = store, run, workers, budget
        self.listener, self.clock = listener, clock
        self.failures: list[str] = []
        self.computed = 0
        self.stopped = ""
        self.asked: Callable[[], bool] = lambda: False
        self._cells = {job.network_key: [key_of(cell) for cell in job.cells] for job in plan.jobs}
        self._plan = plan
        self._ready: list[tuple[int, float, int, Task]] = []
        self._blocked: dict[str, list[Task]] = {}
        self._held: list[tuple[float, Task]] = []
        self._running: dict[int, tuple[Task, float]] = {}
        self._attempts: dict[int, int] = {}
        self._seen: set[str] = set()
        self._waited: set[int] = set()
        self._finished: set[str] = set()
        self._lost: set[str] = set()
        self._took = self._expected = 0.0
        self._number = 0
        for task in tasks:
            self._number = max(self._number, task.number + 1)
            training = task.job.network_key in self._blocked
            if task.cells and training:
                self._blocked[task.job.network_key].append(task)
                continue
            if not task.cells:
                self._blocked[task.job.network_key] = []
            self._push(task)

    @property
    def done(self) -> int:
        return len(self._finished)

    @property
    def failed(self) -> int:
        return len(self._lost - self._finished)

    @property
    def over(self) -> bool:
        """Whether nothing is left, or nothing more may begin."""
        return not self._running and (not self.left or bool(self.check()))

    @property
    def left(self) -> bool:
        """Whether something is still to be done."""
        return bool(self._running or self._ready or self._held or any(self._blocked.values()))

    def next(self) -> Task | None:
        """The next task; None if there is none at the moment."""
        if self.check():
            return None
        if self._ready:
            *_, task = heapq.heappop(self._ready)
        elif self._held and self._held[0][0] <= self.clock():
            _, task = self._held.pop(0)
        else:
            return None
        self._running[task.number] = (task, self.clock())
        return task

    def finish(self, task: Task, result: Result) -> None:
        """A worker has done with a task."""
        del self._running[task.number]
        self.failures += result.failures
        self.computed += result.computed
        self._finished |= result.done
        self._lost |= result.failed
        if result.seconds > 1 and task.seconds > 0 and not (result.held or result.stopped or result.failures):
            self._took, self._expected = self._took + result.seconds, self._expected + task.seconds
        key = task.job.network_key
        if result.broken:
            self._drop_network(key)
        elif result.stopped:
            self.stopped = self.check() or "it was asked to stop"
            self._push(task)
        elif result.held:
            if task.number not in self._waited:
                self._waited.add(task.number)
                self.listener.said(f"another run works on {task.what}; waiting for it")
            left = tuple(cell for cell in task.cells if key_of(cell) not in result.failed | result.done)
            if left or not task.cells:
                self._held.append((self.clock() + _AGAIN, replace(task, cells=left)))
        else:
            self._check_stored(task)
            if not task.cells:
                for blocked in self._blocked.pop(key, []):
                    self._push(blocked)
        self.tell()

    def died(self, task: Task, why: str) -> None:
        """The worker that had a task was killed. Another tries again, with less at once; then it has failed."""
        self._running.pop(task.number)
        attempts = self._attempts[task.number] = self._attempts.get(task.number, 0) + 1
        # Whoever sends SIGTERM means the process, not what it works at; but not for ever.
        if attempts < _ATTEMPTS * (2 if why == "SIGTERM" else 1):
            self.listener.said(f"the worker at {task.what} was killed ({why}); another tries again")
            self._push(replace(task, batch=max(8, (task.batch or CHUNK) // 4)) if task.cells else task)
            return
        error = (
            f"{attempts} {KILLED} ({why}); if memory ran out, use fewer --workers, a smaller "
            "--batch-size for training, or a larger machine"
        )
        key = task.job.weights_key
        if task.cells and self.store.weights(key) is not None:
            for cell in task.cells:
                self.store.begin_cell(cell, self.run)
                self.store.fail_cell(cell, error)
            self._lost |= set(task.keys)
        else:
            # It was the network that could not be had.
            self.store.fail_training(key, task.what, error, "", self.run)
            self._drop_network(task.job.network_key)
        self.failures.append(f"{task.what}: {error}")
        self.listener.failed(task.what, error)
        self.tell()

    def seconds_left(self) -> float:
        """How long the rest should take, judged by how the tasks so far took."""
        # Of sums: a short task that had to wait for the device to wake says nothing of the long ones.
        pace, now = self._took / self._expected if self._expected else 1.0, self.clock()
        # Copies, since the pulse asks from another thread.
        tasks = [entry[-1] for entry in self._ready[:]] + [task for _, task in self._held[:]]
        begun = [(task, max(task.seconds * pace - (now - since), 0.0)) for task, since in [*self._running.values()]]
        left = [(task, task.seconds * pace) for task in tasks] + begun
        trainings = {task.job.network_key: seconds for task, seconds in left if not task.cells}
        ready = Load(0.0, tuple(seconds for task, seconds in left if task.cells))
        blocked = [
            Load(trainings.get(key, 0.0), tuple(task.seconds * pace for task in group[:]))
            for key, group in [*self._blocked.items()]
        ]
        return makespan([ready, *blocked], self.workers)

    def _push(self, task: Task) -> None:
        heapq.heappush(self._ready, (task.turn, task.seconds, task.number, task))

    def check(self) -> str:
        """Why nothing new may begin; empty while something may."""
        asked = "it was asked to stop" if self.asked() else ""
        self.stopped = self.stopped or asked or self.budget.over()
        return self.stopped

    def _drop_network(self, key: str) -> None:
        """None of a network's attacks can run."""
        self._lost |= set(self._cells[key])
        self._blocked.pop(key, None)
        self._ready = [entry for entry in self._ready if entry[-1].job.network_key != key]
        heapq.heapify(self._ready)
        self._held = [entry for entry in self._held if entry[1].job.network_key != key]

    def _check_stored(self, task: Task) -> None:
        """What was imported under a recipe may turn out to be another network's, once that was trained here."""
        key = task.job.network_key
        if key in self._seen:
            return
        self._seen.add(key)
        presumed = [k for k in self._cells[key] if k in self._plan.stored]
        gone = set(presumed) - self.store.done_keys(presumed)
        if not gone:
            return
        for job in self._plan.jobs:
            if job.network_key == key:
                for group in job.trajectories:
                    cells = tuple(cell for cell in group if key_of(cell) in gone)
                    if cells:
                        self._push(replace(task, number=self._number, cells=cells))
                        self._number += 1

    def tell(self) -> None:
        """Say how far all of it is."""
        self.listener.progress(self.done, self.failed, self.seconds_left())
