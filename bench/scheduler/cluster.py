"""Workers on the machines of a Ray cluster: the same worker, sent as a description of itself.

Only the machine of the command needs the dataset and the weights: both travel through Ray's object store. Results go
to a database that all machines reach.
"""

import logging
import os
import pickle
import signal
import socket
import sys
import time
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.atomic import write_atomically
from bench.data.dataset import Dataset
from bench.errors import BenchError, describe
from bench.plan import Plan, TrainJob
from bench.report.text import duration
from bench.scheduler.dispatch import Dispatcher
from bench.scheduler.listener import Listener
from bench.scheduler.remote import Setup, open_worker
from bench.scheduler.task import Result, Task
from bench.scheduler.worker import Worker
from bench.spec import key_of
from bench.store.process import BEAT
from bench.store.roster import STOP, Roster
from bench.training import checkpoint_path

_RETRIES = 2
"""A task whose process or machine dies is tried again by Ray so many times."""
_PATIENCE = 15.0

Files = dict[str, bytes]
"""What makes a trained network, by file name."""


@dataclass(frozen=True)
class Share:
    """What each worker asks of the cluster.

    Attributes:
        cpus, gpus: of them.
        most: workers at a time; None is as many as fit.
    """

    cpus: int = 1
    gpus: float | None = None
    most: int | None = None


def run_cluster(
    dispatcher: Dispatcher, setup: Setup, address: str, share: Share, plan: Plan, roster: Roster, listener: Listener
) -> None:
    """Do a plan's tasks on a cluster.

    Args:
        dispatcher: hands out the tasks.
        setup: what a worker needs to know.
        address: of the cluster; `auto` for the one that this machine belongs to, `local` for one of this machine alone.
        share: of the cluster, for each worker.
        plan: its dataset is sent.
        roster: says what the workers do.
        listener: told of it.

    Raises:
        BenchError: Ray is not installed, there is no such cluster, or a worker cannot work at all.
    """
    ray = _connected(address)
    try:
        total = ray.cluster_resources()
        gpus = share.gpus if share.gpus is not None else float(total.get("GPU", 0) > 0)
        _check_fits(total, share.cpus, gpus)
        machines = sum(node["Alive"] for node in ray.nodes())
        if machines > 1 and "://" not in setup.store:
            raise BenchError(
                f"the cluster has {machines} machines, and an SQLite file is for one; keep results where all reach "
                "them: --store postgresql+psycopg://USER@HOST/DATABASE"
            )
        ours = {job.network_key: job for job in plan.jobs}
        # Ray says on stdout what it thinks of a killed process; that is where results go.
        with redirect_stdout(sys.stderr):
            _Cluster(ray, dispatcher, setup, replace(share, gpus=gpus), plan.dataset, ours, roster, listener).run()
    finally:
        ray.shutdown()


class _Cluster:
    """The cluster as the command sees it: what was sent where, and what came back."""

    def __init__(
        self,
        ray: Any,
        dispatcher: Dispatcher,
        setup: Setup,
        share: Share,
        dataset: Dataset,
        jobs: dict[str, TrainJob],
        roster: Roster,
        listener: Listener,
    ) -> None:
        self.ray, self.dispatcher, self.share, self.jobs = ray, dispatcher, share, jobs
        self.roster, self.listener, self.campaign = roster, listener, setup.campaign
        self.checkpoints = setup.checkpoints
        self.setup, self.dataset = ray.put(setup), ray.put(dataset)
        self.weights: dict[str, Any] = {}
        self.running: dict[Any, tuple[Task, Any]] = {}
        self.job = ray.remote(_job).options(
            num_cpus=share.cpus, num_gpus=share.gpus, num_returns=2, max_retries=_RETRIES, retry_exceptions=False
        )

    def run(self) -> None:
        told, shown = False, 0.0
        try:
            while not self.dispatcher.over:
                while len(self.running) < self._slots() and (task := self.dispatcher.next()) is not None:
                    self._send(task)
                # Also while all are busy: what was begun goes no further than its chunk.
                if not told and self.dispatcher.check():
                    told = True
                    self.roster.ask(self.campaign, STOP)
                if self.running:
                    ended, _ = self.ray.wait(list(self.running), timeout=BEAT / 2)
                    for reference in ended:
                        self._receive(reference)
                else:
                    time.sleep(BEAT / 10)
                if time.monotonic() - shown > BEAT:
                    shown = time.monotonic()
                    self.listener.workers(self.roster.workers(self.campaign))
        finally:
            self._drop()

    def _slots(self) -> int:
        total = self.ray.cluster_resources()
        fit = int(total.get("CPU", 0) // self.share.cpus)
        if self.share.gpus:
            fit = min(fit, int(total.get("GPU", 0) / self.share.gpus))
        return max(1, min(fit, self.share.most or fit))

    def _send(self, task: Task) -> None:
        key = task.job.network_key
        if key not in self.weights:
            self.weights[key] = self.ray.put(_files(self.jobs[key], self.checkpoints))
        # As bytes, since what it holds may be of a plug-in's making, which the worker has to load first.
        result, files = self.job.remote(self.setup, self.dataset, self.weights[key], pickle.dumps(task))
        self.running[result] = (task, files)

    def _receive(self, reference: Any) -> None:
        task, files = self.running.pop(reference)
        try:
            result = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self.dispatcher.died(task, type(error).__name__)
            return
        if isinstance(result, str):
            raise BenchError(result)
        if not task.cells and not result.failures and not result.held:
            self.weights[task.job.network_key] = files
            # Also here: the next command may be one without a cluster.
            _unpack(self.ray.get(files), self.checkpoints)
        self.dispatcher.budget.spend(result.forwards)
        if not (result.failures or result.held or result.stopped):
            self.listener.said(f"{'done' if task.cells else 'trained'} {task.what}, {duration(result.seconds)}")
        self.dispatcher.finish(task, result)

    def _drop(self) -> None:
        """Make what runs end; first so that it can give back what it took on."""
        for force in (False, True):
            for reference in self.running:
                with suppress(Exception):
                    self.ray.cancel(reference, force=force)
            if self.running:
                ended, _ = self.ray.wait(list(self.running), num_returns=len(self.running), timeout=_PATIENCE)
                self.running = {key: value for key, value in self.running.items() if key not in ended}


_worker: tuple[int, Worker] | None = None
"""Of the process: a cluster gives one task after another to the same process."""


def _job(setup: Setup, dataset: Dataset, files: Files, packed: bytes) -> tuple[Result | str, Files]:
    """Do one task on a machine of the cluster: what came of it, or why nothing can, and the weights that it trained."""
    global _worker
    try:
        if _worker is None or _worker[0] != setup.campaign:
            _check_version(setup)
            device = "cuda" if os.environ.get("CUDA_VISIBLE_DEVICES") else "cpu"
            _worker = (setup.campaign, open_worker(setup, device, Listener(), dataset=dataset))
        task: Task = pickle.loads(packed)
        _unpack(files, setup.checkpoints)
        given = task.job.weights_file
        if given is not None and not given.exists():
            task = replace(task, job=replace(task.job, weights_file=setup.checkpoints / _sent_as(task.job, given)))
        result = _worker[1].do(task)
        made = _files(task.job, setup.checkpoints) if not task.cells else {}
    except Exception as error:
        return f"on {os.uname().nodename}: {describe(error)}", {}
    return result, made


def _check_version(setup: Setup) -> None:
    from bench.provenance import code_version

    here = code_version()
    if setup.code and (here["version"], here["commit"]) != setup.code:
        there = " ".join(map(str, setup.code))
        raise BenchError(
            f"bench {here['version']} {here['commit'] or ''} here, and {there} where the command runs; install the "
            "same on all machines"
        )


def _files(job: TrainJob, folder: Path) -> Files:
    """What makes a network, as far as it is there."""
    if job.weights_file is not None:
        return {_sent_as(job, job.weights_file): job.weights_file.read_bytes()}
    path = checkpoint_path(folder, key_of(job.spec))
    paths = [path, path.with_suffix(".json")]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _sent_as(job: TrainJob, given: Path) -> str:
    """What given weights are called where they are sent to: several may be files of one name."""
    return f"{job.weights_key.removeprefix('file:')[:16]}-{given.name}"


def _unpack(files: Files, folder: Path) -> None:
    """Lay files into a folder that may be the one that they come from."""
    for name, content in files.items():
        if not (folder / name).exists():
            write_atomically(folder / name, content)


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise BenchError("--executor ray needs Ray: pip install 'snn-bench[ray]'") from error
    before = signal.getsignal(signal.SIGTERM)
    try:
        # Ray itself would try for minutes.
        if address not in ("auto", "local") and "://" not in address:
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_PATIENCE).close()
        ray.init(
            address=None if address == "local" else address, log_to_driver=False, logging_level=logging.ERROR,
            include_dashboard=False if address == "local" else None,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError) as error:
        raise BenchError(
            f"there is no Ray cluster at '{address}' ({describe(error)[:200]}); start one with: ray start --head, "
            "then on the other machines: ray start --address=HEAD:6379"
        ) from error
    finally:
        # It takes SIGTERM for itself, and would end us before what runs is given back.
        with suppress(ValueError):
            signal.signal(signal.SIGTERM, before)
    return ray


def _check_fits(total: dict[str, float], cpus: int, gpus: float) -> None:
    for name, wanted, option in (("CPU", cpus, "--threads"), ("GPU", gpus, "--gpus-per-worker")):
        if wanted > total.get(name, 0):
            raise BenchError(
                f"a worker asks for {wanted:g} {name}s and the whole cluster has {total.get(name, 0):g}; lower {option}"
            )
