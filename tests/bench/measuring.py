"""Results to test with, measured in this process."""

from pathlib import Path

import torch

from bench.plan import Request, make_plan, together
from bench.scheduler import Listener, run_plan
from bench.store import Store


def measure(results: Path, *requests: Request) -> None:
    """What `bench run` does, in this process."""
    checkpoints = results / "checkpoints"
    plan = together([make_plan(request, checkpoints, results / "data") for request in requests])
    opened = Store(results / "bench.sqlite")
    report = run_plan(plan.known_to(opened), opened, checkpoints, torch.device("cpu"), Listener())
    opened.close()
    assert not report.failures


def tiny_request(tiny_npz: Path, **changes: object) -> Request:
    """A request that takes a second; networks learn something in it."""
    recipe = {"epochs": 6, "batch_size": 16, "train_size": 96}
    values: dict[str, object] = {"dataset": str(tiny_npz), "model": "cnn-small", "recipe": recipe, "eps": ("0.1",)}
    return Request(**(values | changes))  # type: ignore[arg-type]
