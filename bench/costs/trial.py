"""A short trial of a network on this machine, where the store knows nothing of its speed."""

import time
from collections.abc import Callable

import torch

from attacks.gradients import frozen, input_gradient
from attacks.losses import cross_entropy
from bench.costs.fit import CHUNK_SECONDS, Speed
from bench.data.dataset import Dataset
from bench.plan import TrainJob
from bench.training import build_without_rng
from models.random import noise_stream

_FEW, _MANY, _SECONDS = 4, 64, 0.2


def tried(job: TrainJob, dataset: Dataset, device: torch.device) -> Speed:
    """Speeds from a few calls with few images and with more, on weights that nobody trained."""
    model = build_without_rng(job.spec).to(device).to(memory_format=torch.channels_last).eval()
    times = {}
    with frozen(model):
        for count in (_FEW, min(_MANY, len(dataset.x_test))):
            x, y = dataset.pixels(dataset.x_test[:count], device), dataset.y_test[:count].to(device)
            with noise_stream(model, 0, torch.arange(count, device=device)):
                for gradient in (False, True):

                    def call(x: torch.Tensor = x, y: torch.Tensor = y, gradient: bool = gradient) -> None:
                        if gradient:
                            input_gradient(model, x, y, cross_entropy)
                        else:
                            with torch.no_grad():
                                model(x)

                    times[count > _FEW, gradient] = _usual(call, device)
    images = max(min(_MANY, len(dataset.x_test)) - _FEW, 1)
    forward = max(times.get((True, False), times[False, False]) - times[False, False], 0.0) / images
    both = max(times.get((True, True), times[False, True]) - times[False, True], 0.0) / images
    overhead = max(times[False, True] - _FEW * both, 0.0) / 2
    # Where images cost nothing that can be measured, calls do.
    return Speed(max(forward, 1e-9), max(both - forward, forward, 1e-9), overhead, CHUNK_SECONDS)


def _usual(call: Callable[[], None], device: torch.device) -> float:
    """The lower quartile of some calls after the first: others may be computing here, though not all the time."""
    times, began = list[float](), time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - began < _SECONDS and len(times) < 50):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[(len(times) - 1) // 4]
