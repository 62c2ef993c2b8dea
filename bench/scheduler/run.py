"""Runs a plan: in this process, in a pool of them, or on a cluster."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from bench.costs import Costs
from bench.plan import Plan
from bench.provenance import provenance
from bench.scheduler.budget import Budget
from bench.scheduler.dispatch import Dispatcher
from bench.scheduler.inline import run_inline
from bench.scheduler.interrupt import Cancelled, interrupt, interruptible
from bench.scheduler.listener import Listener, Report
from bench.scheduler.pool import run_pool
from bench.scheduler.pulse import Pulse
from bench.scheduler.remote import Setup
from bench.scheduler.task import check_sendable, tasks_of
from bench.scheduler.worker import Worker
from bench.spec import key_of
from bench.store import Store
from bench.store.backup import back_up_if_due
from bench.store.roster import CANCEL, STOP, Roster

_BACKING_UP = "bench backup"


@dataclass(frozen=True)
class Crew:
    """Who does the work.

    Attributes:
        devices: one for each worker process; a single one works in the process of the command.
        threads: of the processor, for each worker; None leaves them as they are.
        plugins: files that worker processes load parts from.
        cluster: address of a Ray cluster, `auto` for the one that this machine belongs to; None for none.
        gpus: what each worker asks of the cluster; None is one where it has GPUs.
        workers: how many at most on the cluster; None is as many as fit.
    """

    devices: Sequence[str] = ()
    threads: int | None = None
    plugins: Sequence[Path] = ()
    cluster: str | None = None
    gpus: float | None = None
    workers: int | None = None


def run_plan(
    plan: Plan,
    store: Store,
    checkpoints: Path,
    device: torch.device,
    listener: Listener,
    *,
    crew: Crew | None = None,
    budget: Budget | None = None,
) -> Report:
    """Compute what the store lacks, committing every chunk as it is finished.

    A network or an attack that fails is recorded with its traceback and does not stop the others.

    Args:
        plan: from `make_plan`, `known_to` the store.
        store: where results go.
        checkpoints: folder of trained weights.
        device: where to compute.
        listener: told what happens.
        crew: who works; this process if not given.
        budget: what may be spent; anything if not given.

    Raises:
        BenchError: the store or the results folder can no longer be written.
        Cancelled: by `bench cancel`.
    """
    crew = crew or Crew()
    report = Report(keys=[key_of(cell) for cell in plan.cells], store=store)
    Roster(store).close_gone()
    if plan.missing:
        _run(plan, store, checkpoints, device, listener, crew, budget or Budget(), report)
    return report


def _run(
    plan: Plan,
    store: Store,
    checkpoints: Path,
    device: torch.device,
    listener: Listener,
    crew: Crew,
    budget: Budget,
    report: Report,
) -> None:
    origin = provenance(device) | ({"asked": list(plan.asked)} if plan.asked else {})
    run = store.begin_run(origin)
    roster = Roster(store)
    costs = Costs(plan, store, device, crew.threads)
    tasks = tasks_of(plan, costs.training, costs.attack)
    if crew.cluster is not None or len(crew.devices) > 1:
        check_sendable(tasks)
    # More than there are tasks would only wait.
    devices = crew.devices[: max(1, len(tasks))]
    workers = max(1, len(devices))
    dispatcher = Dispatcher(plan, tasks, store, run, workers, budget, listener)
    campaign = roster.open_campaign(run, len(plan.cells), len(plan.stored))
    dispatcher.tell()
    state = "interrupted"
    pulse: Pulse | None = None
    try:
        with interruptible():
            pulse = Pulse(lambda: _report(roster, campaign, dispatcher, listener), interrupt)
            # What is cancelled is interrupted, which is sooner than the next look.
            dispatcher.asked = lambda: pulse.asked == STOP
            where = str(store.file.resolve()) if store.file else store.url
            setup = Setup(
                where, checkpoints.resolve(), plan.source, plan.data_dir, tuple(crew.plugins), campaign,
                origin["command"], crew.threads, (origin["version"], origin["commit"]), plan.asked,
            )  # fmt: skip
            if crew.cluster is not None:
                from bench.scheduler.cluster import Share, run_cluster

                share = Share(crew.threads or 1, crew.gpus, crew.workers)
                run_cluster(dispatcher, setup, crew.cluster, share, plan, roster, listener)
            elif len(crew.devices) > 1:
                run_pool(dispatcher, setup, devices, roster, listener)
            else:
                _inline(dispatcher, plan, store, checkpoints, device, run, campaign, listener)
        # A budget that was spent with the last cell stopped nothing.
        dispatcher.stopped = dispatcher.stopped if dispatcher.left else ""
        state = "failed" if dispatcher.failures else "stopped" if dispatcher.stopped else "done"
    except KeyboardInterrupt:
        if pulse is not None and pulse.asked == CANCEL:
            state = "cancelled"
            raise Cancelled from None
        raise
    except Exception:
        state = "failed"
        raise
    finally:
        if pulse is not None:
            pulse.end()
        for thread in threading.enumerate():
            if thread.name == _BACKING_UP:
                # The store is about to be closed.
                thread.join()
        _close(roster, campaign, dispatcher, state)
        if dispatcher.computed:
            _back_up(store, listener, finished=True)
        report.failures, report.computed, report.stopped = dispatcher.failures, dispatcher.computed, dispatcher.stopped


def _inline(
    dispatcher: Dispatcher,
    plan: Plan,
    store: Store,
    checkpoints: Path,
    device: torch.device,
    run: int,
    campaign: int,
    listener: Listener,
) -> None:
    worker = Worker(
        plan.dataset, store, checkpoints, device, run, campaign, listener.worker(0),
        stop=lambda: bool(dispatcher.check()), spent=dispatcher.budget.spend,
    )  # fmt: skip
    try:
        run_inline(dispatcher, worker)
    finally:
        worker.end()


def _back_up(store: Store, listener: Listener, *, finished: bool) -> None:
    if problem := back_up_if_due(store.file, finished=finished):
        listener.said(f"warning: {problem}")


def _report(roster: Roster, campaign: int, dispatcher: Dispatcher, listener: Listener) -> str:
    if not any(thread.name == _BACKING_UP for thread in threading.enumerate()):
        # Reading a large store through takes minutes, in which the campaign has to beat.
        task = partial(_back_up, roster.store, listener, finished=False)
        threading.Thread(target=task, daemon=True, name=_BACKING_UP).start()
    dispatcher.tell()
    return roster.report(campaign, dispatcher.done, dispatcher.failed, dispatcher.seconds_left())


def _close(roster: Roster, campaign: int, dispatcher: Dispatcher, state: str) -> None:
    roster.report(campaign, dispatcher.done, dispatcher.failed, None)
    roster.close_campaign(campaign, state)
