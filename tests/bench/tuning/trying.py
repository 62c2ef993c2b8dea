"""A search that takes seconds, in this process."""

from pathlib import Path
from typing import Any

import torch

from bench.plan import Plan, Request
from bench.scheduler import Listener, Report, run_plan
from bench.store import Store
from bench.tuning.result import Found
from bench.tuning.run import RunBatch, tune
from bench.tuning.study import Search, searches


def asked(tiny_npz: Path, **changes: Any) -> Request:
    """A request that a search needs a moment for."""
    recipe = {"epochs": 1, "batch_size": 16, **changes.pop("recipe", {})}
    values = {"dataset": str(tiny_npz), "model": "cnn-small", "attacks": ("fgsm",), "eps": ("0.1",)}
    return Request(**(values | {"recipe": recipe} | changes))


def computing(folder: Path, store: Store) -> RunBatch:
    """What computes trials as `bench tune` does."""

    def compute(search: Search, numbers: range, plan: Plan) -> Report:
        return run_plan(plan, store, folder / "checkpoints", torch.device("cpu"), Listener())

    return compute


def search_of(request: Request, folder: Path, count: int | None = None) -> Search:
    """The search of a request with one defense."""
    (search,) = searches(request, folder / "checkpoints", folder / "data", count)
    return search


def tuned(request: Request, folder: Path, budget: int, compute: RunBatch | None = None) -> tuple[Search, Found]:
    """Search in a folder, in whose store it may have begun."""
    store = Store(folder / "bench.sqlite")
    search = search_of(request, folder)
    found, _ = tune(search, budget, store, store.begin_run({}), compute or computing(folder, store))
    store.close()
    return search, found
