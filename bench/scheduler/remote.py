"""A worker in a process of its own, from a description of it that can be sent."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.data import Dataset, load_dataset
from bench.provenance import provenance
from bench.registry import load_plugin
from bench.runtime import pick_device
from bench.scheduler.listener import Listener
from bench.scheduler.worker import Worker
from bench.store import Store


@dataclass(frozen=True)
class Setup:
    """What a worker process needs to know.

    Attributes:
        store: path or URL.
        checkpoints: folder of trained weights.
        dataset, data_dir: as in the plan's request.
        plugins: files that register parts.
        campaign: that it takes part in.
        command: as typed, for the provenance.
        threads: of the processor.
        code: version and commit of the command, which workers elsewhere must have as well; empty where that is sure.
        asked: see `Plan.asked`.
    """

    store: str
    checkpoints: Path
    dataset: str
    data_dir: Path
    plugins: tuple[Path, ...]
    campaign: int
    command: str
    threads: int | None = None
    code: tuple[str, str | None] | tuple[()] = ()
    asked: tuple[str, ...] = ()


def open_worker(
    setup: Setup,
    device: str,
    listener: Listener,
    *,
    dataset: Dataset | None = None,
    stop: Callable[[], bool] = lambda: False,
    spent: Callable[[int], None] = lambda forwards: None,
    cancelled: Callable[[], None] = lambda: None,
) -> Worker:
    """Prepare this process and make a worker of it.

    Args:
        setup: what to work on.
        device: where to compute.
        dataset: that came along; loaded here if not.
        listener, stop, spent, cancelled: see `Worker`.

    Raises:
        BenchError: a plug-in, the dataset, the store or the device is not to be had here.
    """
    for path in setup.plugins:
        load_plugin(path)
    place = pick_device(device, setup.threads)
    held = dataset or load_dataset(setup.dataset, setup.data_dir)
    store = Store(setup.store)
    asked = {"asked": list(setup.asked)} if setup.asked else {}
    run = store.begin_run(provenance(place) | {"command": setup.command, "campaign": setup.campaign} | asked)
    return Worker(
        held, store, setup.checkpoints, place, run, setup.campaign, listener,
        stop=stop, spent=spent, cancelled=cancelled,
    )  # fmt: skip
