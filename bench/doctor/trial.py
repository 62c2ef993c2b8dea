"""One run of an attack under watch."""

import random
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.base import Candidate
from attacks.combinators import restarted
from attacks.threat import Norm
from bench.doctor.finding import UnsoundError
from bench.doctor.oracle import Problem
from bench.doctor.subject import Subject
from bench.evaluation import CountedModel
from bench.resolve import attack_arguments
from bench.runtime import isolated_generator
from models.neurons import spiking_layers
from models.random import CounterRNG, noise_stream

_KEY = 0xD0C


@dataclass(frozen=True)
class Trial:
    """What a run of an attack gave and what it left behind.

    Attributes:
        candidate: what it proposed; None where it raised.
        error: what it raised.
        changed: what of the model is not as it was before.
        inputs: which of the inputs are not as they were.
        generators: which global generators are not where they were.
        forwards, backwards: passes for each image.
    """

    candidate: Candidate | None
    error: Exception | None
    changed: list[str]
    inputs: list[str]
    generators: list[str]
    forwards: float
    backwards: float

    @property
    def proposal(self) -> Candidate:
        """The candidate.

        Raises:
            Exception: what the attack raised instead.
        """
        if self.error is not None:
            raise self.error
        assert self.candidate is not None
        return self.candidate


class PlannedError(RuntimeError):
    """Raised by the model itself, on purpose."""


def trial(subject: Subject, problem: Problem, norm: Norm, samples: Tensor | None = None, fails_at: int = 0) -> Trial:
    """Run an attack on a fresh network, as the harness does but with nothing to catch what it breaks.

    Args:
        subject: the attack.
        problem: images and network.
        norm: which of the subject's specs.
        samples: dataset indices of the images, int64 [N]; their numbers if not given.
        fails_at: the network raises in this call, counted from 1; 0 means never.
    """
    spec = subject.spec(norm)
    model, device = problem.model(), problem.x.device
    counted = CountedModel(model)
    # The wrapper's own mode is none of the network's.
    counted.train(True)
    model.spiking.eval()
    if fails_at:
        _fail_in(model, fails_at)
    x, y = problem.x.clone(), problem.y.clone()
    rows = torch.arange(len(x), device=device) if samples is None else samples
    counted.reset(rows)
    kept_x, kept_y, kept_rows, before = x.clone(), y.clone(), rows.clone(), _state(counted)
    candidate, problem_met = None, None
    steps = {"steps": (spec.steps,)} if subject.attack.takes_steps else {}
    with isolated_generator(device, _KEY):
        generators = _generators(device)
        try:
            with nullcontext() if subject.attack.own_batches else noise_stream(model, _KEY, rows):
                path = restarted(
                    subject.attack,
                    1,
                    counted,
                    x,
                    y,
                    problem.threat,
                    rng=CounterRNG(_KEY, rows),
                    eot=1,
                    **steps,
                    **attack_arguments(spec),
                )
            candidate = _checked(path, spec.steps, problem.x)
        except Exception as error:
            problem_met = error
        moved = _differing(generators, _generators(device))
    inputs = _differing({"x": kept_x, "y": kept_y, "rng": kept_rows}, {"x": x, "y": y, "rng": rows})
    changed = _differing(before, _state(counted))
    n = len(x)
    return Trial(candidate, problem_met, changed, inputs, moved, counted.forwards / n, counted.backwards / n)


def _checked(path: Any, steps: int, x: Tensor) -> Candidate:
    if steps not in path:
        raise UnsoundError(f"returns no candidate for step {steps}")
    candidate: Candidate = path[steps]
    for images in (candidate.last, candidate.best):
        if not isinstance(images, Tensor) or images.shape != x.shape:
            got = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise UnsoundError(f"returns {got} instead of images {list(x.shape)}")
        if images.dtype != x.dtype or images.device != x.device:
            raise UnsoundError(f"returns {images.dtype} on {images.device} for {x.dtype} on {x.device}")
    return candidate


def _fail_in(model: nn.Module, call: int) -> None:
    calls = 0

    def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise PlannedError("the network fails here on purpose")

    model.register_forward_hook(fail)


def _state(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that an attack must leave alone, by what a person calls it."""
    state: dict[str, Any] = {f"value of {name}": value.detach().clone() for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state[f"requires_grad of {name}"] = parameter.requires_grad
        state[f"grad of {name}"] = None if parameter.grad is None else parameter.grad.detach().clone()
    for name, module in model.named_modules():
        state[f"mode of {name or 'the network'}"] = module.training
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        state[f"hooks of {name or 'the network'}"] = [len(found) for found in hooks]
    for name, layer in spiking_layers(model).items():
        state[f"gradient of {name}"] = (id(layer.surrogate), id(layer.replacement))
    return state


def _generators(device: torch.device) -> dict[str, Any]:
    found: dict[str, Any] = {
        "torch's generator": torch.get_rng_state(),
        "numpy's generator": [str(part) for part in _numpy_state()],
        "Python's generator": random.getstate(),
    }
    if device.type == "cuda":
        found["CUDA's generator"] = torch.cuda.get_rng_state(device)
    return found


def _numpy_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return (name, np.asarray(keys).tobytes(), *rest)


def _differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [key for key, value in before.items() if not _same(value, after.get(key))]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and torch.equal(a.isnan(), b.isnan()) and bool((a.eq(b) | a.isnan()).all())
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b
