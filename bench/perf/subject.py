"""What every contestant is measured on: one network's weights and one set of images."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.checkpoint import load_tensors, save_tensors
from bench.data import load_dataset
from bench.errors import BenchError
from bench.perf.neurons import PlainLIF
from bench.perf.plain import MODELS, build_plain
from bench.resolve import build_model
from bench.spec import ModelSpec
from bench.training import build_without_rng
from models.neurons import NeuronSpec

EPS, ALPHA = Fraction(8, 255), 0.01
"""Of every attack here: the papers' budget and step size."""
_SETTLING = 4


@dataclass(frozen=True)
class Subject:
    """One network and its images.

    Attributes:
        spec: our architecture and what it is built from.
        state: weights and buffers.
        x: images [N, C, H, W] in [0, 1].
        y: labels [N]; the network's own answers on random images.
        origin: where weights and images come from, for people.
    """

    spec: ModelSpec
    state: Mapping[str, Tensor]
    x: Tensor
    y: Tensor
    origin: str

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """The first `size` images and labels, repeated where there are not so many."""
        index = torch.arange(size) % len(self.x)
        return self.x[index], self.y[index]

    def save(self, path: Path) -> None:
        """Write everything to one safetensors file, for another process."""
        tensors = {f"state.{name}": value for name, value in self.state.items()} | {"x": self.x, "y": self.y}
        save_tensors(path, tensors, {"spec": asdict(self.spec), "origin": self.origin})

    @classmethod
    def load(cls, path: Path) -> "Subject":
        """Read what `save` wrote."""
        tensors, metadata = load_tensors(path)
        state = {name.removeprefix("state."): value for name, value in tensors.items() if name.startswith("state.")}
        return cls(_read_spec(metadata["spec"]), state, tensors["x"], tensors["y"], metadata["origin"])

    def with_steps(self, T: int) -> "Subject":
        """The same weights run for another number of time steps."""
        return replace(self, spec=replace(self.spec, T=T))


def make_subject(
    model: str | None = None,
    *,
    T: int | None = None,
    decay: float | None = None,
    images: int = 16,
    weights: Path | None = None,
    dataset: str | None = None,
    data_dir: Path = Path("data"),
    in_shape: tuple[int, int, int] = (3, 32, 32),
    seed: int = 0,
) -> Subject:
    """Build the subject of a comparison.

    Args:
        model: a name in `MODELS`; with `weights` it must be the file's, and is wrn16-4 otherwise.
        T, decay: of the network; 4 and 0.5, or the file's.
        images: how many.
        weights: a checkpoint; random weights with settled batch-norm statistics if not given.
        dataset: its first test images are used; random ones if not given.
        data_dir: of datasets.
        in_shape: of random images.
        seed: of random weights and images.

    Raises:
        BenchError: an unknown or another model, an unreadable file, a neuron other than the plain one.
    """
    spec, loaded = None, None
    if weights is not None:
        loaded, metadata = load_tensors(weights)
        written = metadata.get("spec", {}).get("model")
        spec = _read_spec(written) if written else None
        if spec is not None and model not in (None, spec.name):
            raise BenchError(f"'{weights}' is a {spec.name}, not a {model}")
    data = load_dataset(dataset, data_dir) if dataset else None
    if (data and data.frames is not None) or (spec and spec.frames):
        raise BenchError("speed is compared on images, which the other libraries know, and not on frames")
    if spec is None:
        channels = data.in_shape[0] if data else in_shape[0]
        mean, std = (data.mean, data.std) if data else ((0.5,) * channels, (0.25,) * channels)
        shape, classes = (data.in_shape, data.num_classes) if data else (in_shape, 10)
        spec = ModelSpec(model or "wrn16-4", classes, shape, 4, NeuronSpec(), mean, std)
    elif data and (data.in_shape, data.num_classes) != (spec.in_shape, spec.num_classes):
        raise BenchError(f"'{weights}' is for other images or classes than dataset '{dataset}'")
    neuron = replace(NeuronSpec(), decay=spec.neuron.decay if decay is None else decay)
    if replace(spec.neuron, kind="lif", params=(), decay=neuron.decay) != neuron:
        raise BenchError(
            f"'{weights}' has neurons that differ from the papers' in more than their decay; none is compared"
        )
    left_out = ", its noise left out" if spec.neuron.kind != neuron.kind else ""
    if not 0 < neuron.decay < 1:
        raise BenchError(
            f"--decay must lie between 0 and 1 here, got {neuron.decay}: SpikingJelly's tau knows no other"
        )
    spec = replace(spec, neuron=neuron, T=spec.T if T is None else T, fingerprint="")
    if spec.name not in MODELS:
        raise BenchError(f"speed is compared on {', '.join(MODELS)}, not on '{spec.name}'")
    generator = torch.Generator().manual_seed(seed)
    if data:
        x, y = data.pixels(data.x_test[:images]), data.y_test[:images]
    else:
        x, y = torch.rand((images, *spec.in_shape), generator=generator), None
    plain = build_plain(spec, PlainLIF, looped=False)
    if loaded is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            state = build_model(spec).state_dict()
        plain.load(state)
        # Of a generator of its own: the network is the same whatever the number of images.
        settle(plain, torch.rand((32, *spec.in_shape), generator=torch.Generator().manual_seed(seed + 1)))
        state = {name: plain.state_dict()[name].clone() for name in state}
    else:
        plain.load(loaded)
        state = loaded
    if y is None:
        with torch.no_grad():
            y = plain.eval()(x).argmax(1)
    origin = f"{weights.name if weights else f'random weights {seed}'}{left_out}, {dataset or 'random images'}"
    return Subject(spec, state, x, y, origin)


def settle(model: nn.Module, x: Tensor) -> None:
    """Make a network with random weights alive: batch-norm statistics of its own activations on x, in eval mode."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    model.train()
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None
        for part in x.chunk(_SETTLING):
            model(part)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    model.eval()
    for layer in (layer for layer in getattr(model, "classifier", ()) if isinstance(layer, nn.Linear)):
        _settle_linear(model, layer, x)


def _settle_linear(model: nn.Module, layer: nn.Linear, x: Tensor) -> None:
    """Scale a layer that no normalisation follows, so that its neurons neither sleep nor fire at every step."""
    seen: list[float] = []
    hook = layer.register_forward_hook(lambda *call: seen.append(float(call[2].std())))
    with torch.no_grad():
        model(x)
        hook.remove()
        layer.weight.div_(seen[0] or 1.0)


def build_ours(subject: Subject, *, noisy: bool = False, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Our network with the subject's weights, as `bench run` holds it."""
    neuron = subject.spec.neuron
    if noisy:
        neuron = replace(neuron, kind="nlif", params=(("noise_var", 0.4),))
    model = build_without_rng(replace(subject.spec, neuron=neuron))
    model.load_state_dict(dict(subject.state))
    return model.to(dtype).to(memory_format=torch.channels_last).eval()


def _read_spec(written: Mapping[str, Any]) -> ModelSpec:
    """A `ModelSpec` from its JSON form."""
    plain = dict(written)
    neuron = dict(plain.pop("neuron"))
    neuron["params"] = tuple((str(name), value) for name, value in neuron.get("params", ()))
    for name in ("in_shape", "mean", "std"):
        plain[name] = tuple(plain[name])
    return ModelSpec(neuron=NeuronSpec(**neuron), **plain)
