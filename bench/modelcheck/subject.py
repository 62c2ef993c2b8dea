"""The network that is checked: built as a run would build it, with what went wrong as a finding."""

from pathlib import Path

import torch
from torch import nn

from bench.audit.finding import INVALID, Finding
from bench.checkpoint import load_into, load_tensors
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.plan import STEPS
from bench.registry import MODELS
from bench.spec import ModelSpec
from bench.training import build_without_rng
from models.foreign.net import IMAGE, Adapted
from models.neurons import NeuronSpec


def model_spec(name: str, dataset: Dataset, T: int | None) -> ModelSpec:
    """What a run on this dataset would build under that name.

    Raises:
        BenchError: there is no such model, or T makes no sense.
    """
    if T is not None and T < 1:
        raise BenchError(f"T must be at least 1, got {T}")
    if dataset.frames is not None and T not in (None, dataset.frames):
        raise BenchError(f"-T {T} with recordings of {dataset.frames} frames: leave -T out")
    entry = MODELS.entry(name)
    entry.load()
    return ModelSpec(
        name=name, num_classes=dataset.num_classes, in_shape=dataset.in_shape, T=dataset.frames or T or STEPS,
        neuron=NeuronSpec(), mean=dataset.mean, std=dataset.std, fingerprint=entry.fingerprint(),
        frames=dataset.frames is not None,
    )  # fmt: skip


def built(
    spec: ModelSpec, weights: Path | None, device: torch.device, *, steps_given: bool
) -> tuple[nn.Module | None, list[Finding]]:
    """The network on its device, or None and the finding that says why there is none.

    Args:
        spec: what to build.
        weights: a checkpoint to load into it.
        device: where to put it.
        steps_given: whether T is the user's word.

    Raises:
        BenchError: the checkpoint cannot be read.
    """
    tensors = None if weights is None else load_tensors(weights)[0]
    try:
        model = build_without_rng(spec)
    except BenchError as error:
        return None, [Finding("builds", INVALID, None, None, str(error))]
    own = isinstance(model, Adapted) and model.way == IMAGE
    found = []
    if isinstance(model, Adapted) and steps_given and model.T != spec.T:
        says = f"it loops over {model.T} time steps itself, whatever -T says: leave -T {spec.T} out"
        found.append(Finding("time steps", INVALID, None, None, says))
    elif isinstance(model, Adapted) and not own and not steps_given and weights is not None and not spec.frames:
        says = (
            "it takes one time step after the other and does not say how many: give -T, the number it was trained with"
        )
        found.append(Finding("time steps", INVALID, None, None, says))
    if tensors is not None and weights is not None:
        try:
            load_into(model, tensors, weights)
        except BenchError as error:
            return None, [*found, Finding("loads", INVALID, None, None, str(error))]
    return model.to(device).to(memory_format=torch.channels_last), found
