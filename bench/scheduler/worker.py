"""One process's part of a plan: it does tasks, one after another, wherever it runs."""

import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bench.data.dataset import Dataset
from bench.errors import LeaseLostError, StorageError, describe, traceback_of
from bench.evaluation import CleanScores, Room
from bench.plan import TrainJob
from bench.scheduler.listener import Listener
from bench.scheduler.pulse import Doing, Pulse
from bench.scheduler.task import Result, Task
from bench.scheduler.work import Place, Stopped, measure, network
from bench.spec import key_of
from bench.store import Store
from bench.store.process import Watch
from bench.store.roster import STOP, Roster

_KEPT = {"cpu": 4, "cuda": 2}
"""Networks that stay in memory, for their next attack."""


class Worker:
    """Does tasks: the same in the process of the command, in a pool, and on another machine.

    Args:
        dataset: of the plan.
        store: where outcomes go.
        checkpoints: folder of trained weights.
        device: where to compute.
        run: this process's entry, see `Store.begin_run`.
        campaign: that it takes part in, see `Roster.open_campaign`.
        listener: told what it does.
        stop: asked before each chunk and after each epoch.
        spent: told of the forward passes of each chunk.
        cancelled: called in another thread when somebody cancelled the campaign.
    """

    def __init__(
        self,
        dataset: Dataset,
        store: Store,
        checkpoints: Path,
        device: torch.device,
        run: int,
        campaign: int,
        listener: Listener,
        *,
        stop: Callable[[], bool] = lambda: False,
        spent: Callable[[int], None] = lambda forwards: None,
        cancelled: Callable[[], None] = lambda: None,
    ) -> None:
        self.dataset, self.checkpoints = dataset, checkpoints
        self.roster, self.watch = Roster(store), Watch()
        self.number = self.roster.join(campaign, run)
        self._doing = Doing(listener)
        self._forwards = 0
        self._tell = spent
        self._stop = stop
        self.place = Place(store, device, run, self.number, self._doing, self._stops, self._spend)
        self._networks: OrderedDict[str, nn.Module] = OrderedDict()
        self._checked: set[str] = set()
        self._clean: dict[str, CleanScores] = {}
        self._rooms = {key: Room(batch) for key, batch in store.fitting(device).items()}
        self._pulse = Pulse(self._beat, cancelled)

    def do(self, task: Task) -> Result:
        """Do a task, or say that another worker has it.

        Raises:
            BenchError: the store or the folder of checkpoints can no longer be written.
        """
        began, self._forwards = time.monotonic(), 0
        held = self.roster.claim(self.number, task.keys, self.watch)
        mine = set(task.keys) - set(held)
        try:
            if not mine:
                return Result(held=True)
            result = self._train(task) if not task.cells else self._attack(task, mine)
        except LeaseLostError:
            result = Result(held=True)
        finally:
            self._doing.rest()
            self.roster.release(self.number, mine)
        return replace(
            result, held=result.held or bool(held), seconds=time.monotonic() - began, forwards=self._forwards
        )

    def end(self) -> None:
        """This worker does nothing more."""
        self._pulse.end()
        self.roster.leave(self.number)

    def _train(self, task: Task) -> Result:
        try:
            self._network(task.job)
        except Stopped:
            return Result(stopped=True)
        except StorageError:
            raise
        except (Exception, SystemExit) as error:
            return self._broken(task, error)
        return Result()

    def _attack(self, task: Task, mine: set[str]) -> Result:
        store = self.place.store
        try:
            model = self._network(task.job)
        except Stopped:
            return Result(stopped=True)
        except StorageError:
            raise
        except (Exception, SystemExit) as error:
            return self._broken(task, error)
        # Another run may have finished some meanwhile; and what was imported under this recipe may turn out to be
        # another network's, now that this one was trained here.
        done = store.done_keys(task.keys)
        cells = [cell for cell in task.cells if key_of(cell) in mine - done]
        if not cells:
            return Result(frozenset(done))
        clean = self._clean.setdefault(task.job.network_key, {})
        measured = measure(model, self.dataset, cells, self.place, clean, self._room(task))
        keys = {row.key for row in measured.rows}
        return Result(
            frozenset(done | keys), len(keys), tuple(measured.failures), frozenset(measured.failed),
            stopped=measured.stopped,
        )  # fmt: skip

    def _broken(self, task: Task, error: BaseException) -> Result:
        """The network cannot be had: defenses, models and files may be anyone's."""
        text, what = describe(error), f"{task.job.spec.defense_name} (seed {task.job.spec.seed})"
        self.place.store.fail_training(task.job.weights_key, what, text, traceback_of(error), self.place.run)
        self._doing.failed(what, text)
        return Result(failures=(f"{what}: {text}",), broken=True)

    def _network(self, job: TrainJob) -> nn.Module:
        key = job.network_key
        held = self._networks.get(key)
        if held is None:
            check_writable(self.checkpoints)
            while len(self._networks) >= _KEPT.get(self.place.device.type, 1):
                self._networks.popitem(last=False)
            held = network(
                job, self.dataset, self.place.store, self.checkpoints, self.place.device, self.place.run, self._doing,
                checked=key not in self._checked, stop=self._stops,
            )  # fmt: skip
            self._checked.add(key)
        self._networks[key] = held
        self._networks.move_to_end(key)
        return held

    def _room(self, task: Task) -> Room:
        cell = task.cells[0]
        room = self._rooms.setdefault((key_of(task.job.spec.model), cell.attack.family, cell.attack.eot), Room())
        room.batch = min(room.batch, task.batch or room.batch)
        return room

    def _beat(self) -> str:
        state = self._doing
        return self.roster.beat(self.number, state.doing, state.amount, state.total, state.note)

    def _stops(self) -> bool:
        return self._pulse.asked == STOP or self._stop()

    def _spend(self, forwards: int) -> None:
        self._forwards += forwards
        self._tell(forwards)


def check_writable(folder: Path) -> None:
    """Find out before an hour of training, not after it.

    Raises:
        StorageError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"bench")
    except OSError as error:
        raise StorageError(
            f"cannot write to '{folder}': {error.strerror}; choose another folder with --results"
        ) from error
