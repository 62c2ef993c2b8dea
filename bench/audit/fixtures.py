"""Networks with a known fault, each built around one small trained network: what the audit must catch, and must not."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.pgd import pgd
from attacks.threat import Threat
from bench.audit.join import AuditSpec
from bench.data.dataset import Dataset, pixels
from bench.runtime import isolated_generator
from bench.spec import ModelSpec
from models.neurons import NeuronSpec, number_layers, spiking_layers
from models.random import CounterRNG, active_noise_stream, derive_key
from models.surrogates import Triangular
from models.tiny import SpikingMLP

EPS = Fraction(1, 10)
_WIDTHS, _T, _FRAMES = (64, 64), 4, 8
_EPOCHS, _BATCH, _LR = 8, 64, 0.1
_LEVELS = 8


@dataclass(frozen=True)
class Fixture:
    """A network whose fault is known.

    Attributes:
        name: what is wrong with it.
        base: which trained network it is built around, a key of `BASES`.
        build: from the base network to the fixture; the base may be kept inside.
        caught_by: checks of which at least one must not pass; empty for a sound network, which must pass all.
    """

    name: str
    base: str
    build: Callable[[nn.Module], nn.Module]
    caught_by: tuple[str, ...] = ()


class Wrapped(nn.Module):
    """A network with something around it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]."""
        return self.net(x)  # type: ignore[no-any-return]


class DetachedInput(Wrapped):
    """The gradient is cut at the input and replaced by zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach() + 0 * x)


class NoGraph(Wrapped):
    """Runs under no_grad: there is no gradient at all."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class Quantised(Wrapped):
    """Pixels are rounded to multiples of 1/8, whose derivative is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * _LEVELS).round() / _LEVELS)


class WrongSign(Wrapped):
    """A backward pass that points down the hill."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x.detach() - x)


class Softmax(Wrapped):
    """Probabilities in place of logits."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class Saturated(Wrapped):
    """Logits so large that cross-entropy is exactly zero."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e3 * super().forward(x)


class Leaking(Wrapped):
    """What was computed before stays in the potentials of the output."""

    potential: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        kept = self.potential
        fits = isinstance(kept, Tensor) and kept.shape == logits.shape
        logits = logits + 0.5 * kept if fits else logits
        self.potential = logits.detach()
        return logits


class Poisoned(Wrapped):
    """NaN for bright images."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1) > 0.36
        return torch.where(bright[:, None], torch.nan, super().forward(x))


class Poisson(Wrapped):
    """Pixels are firing rates: each step sees a fresh binary image. The gradient passes straight through.

    Args:
        declared: whether it says so, and draws from the noise stream.
    """

    def __init__(self, net: nn.Module, declared: bool) -> None:
        super().__init__(net)
        self.stochastic = declared

    def forward(self, x: Tensor) -> Tensor:
        frames = x[None].expand(_FRAMES, *x.shape)
        stream = active_noise_stream() if self.stochastic else None
        # The normal distribution function makes uniform numbers of normal ones.
        u = torch.rand(frames.shape) if stream is None else torch.special.ndtr(stream.normal(frames, 99))
        spikes = (u.to(x.device) < frames).to(x.dtype)
        return super().forward((frames + (spikes - frames).detach()).transpose(0, 1))


def silent(net: nn.Module) -> nn.Module:
    """No neuron reaches its threshold."""
    for layer in spiking_layers(net).values():
        layer.v_threshold = 1e6
    return net


def needle(net: nn.Module) -> nn.Module:
    """The surrogate's support is so narrow that hardly any potential lies in it."""
    for layer in spiking_layers(net).values():
        layer.surrogate = Triangular(0.01)
    return net


def _same(net: nn.Module) -> nn.Module:
    return net


FIXTURES = (
    Fixture("detached input", "vanilla", DetachedInput, ("zero gradient",)),
    Fixture("no graph", "vanilla", NoGraph, ("zero gradient",)),
    Fixture("quantised input", "vanilla", Quantised, ("blind gradient", "zero gradient")),
    Fixture("wrong sign", "vanilla", WrongSign, ("direction",)),
    Fixture("softmax output", "vanilla", Softmax, ("probabilities",)),
    Fixture("saturated ce", "vanilla", Saturated, ("saturated ce",)),
    Fixture("needle surrogate", "vanilla", needle, ("surrogate spread", "zero gradient")),
    Fixture("leaked state", "vanilla", Leaking, ("state",)),
    Fixture("nan logits", "vanilla", Poisoned, ("nan",)),
    Fixture("silent", "vanilla", silent, ("silent",)),
    Fixture("poisson", "poisson", lambda net: net, ("eot",)),
    Fixture("poisson undeclared", "poisson", lambda net: _undeclared(net), ("undeclared noise",)),
    Fixture("sound: vanilla", "vanilla", _same),
    Fixture("sound: adversarially trained", "at", _same),
    Fixture("sound: noisy", "nlif", _same),
)


def _undeclared(net: nn.Module) -> nn.Module:
    assert isinstance(net, Poisson)
    net.stochastic = False
    return net


def model_spec(dataset: Dataset, base: str) -> ModelSpec:
    """The identity of a base network, as keys hold it."""
    kind = "nlif" if base == "nlif" else "lif"
    params = (("noise_var", 0.1),) if base == "nlif" else ()
    neuron = NeuronSpec(kind, params=params)
    return ModelSpec(f"audit-{base}", dataset.num_classes, dataset.in_shape, _T, neuron, dataset.mean, dataset.std)


def audit_spec(dataset: Dataset, base: str, seed: int, n: int) -> AuditSpec:
    """What an audit of a fixture is of."""
    weights = f"fixture:{base}:{seed}"
    return AuditSpec(weights, model_spec(dataset, base), dataset.test_hash, n, "linf", EPS)


BASES = ("vanilla", "at", "nlif", "poisson")


def trained_base(dataset: Dataset, base: str, seed: int, epochs: int = _EPOCHS) -> nn.Module:
    """Train one of `BASES` on a dataset of small images; seconds.

    Args:
        dataset: digits.
        base: `vanilla`, `at` (on PGD-2 examples), `nlif` (noisy neurons) or `poisson` (a Poisson encoder in front).
        seed: of the weights, the order and the noise.
        epochs: passes over the training images.
    """
    spec = model_spec(dataset, base)
    device = torch.device("cpu")
    with isolated_generator(device, derive_key("audit base", base, seed)):
        net: nn.Module = SpikingMLP(
            spec.num_classes, spec.in_shape, _WIDTHS, spec.neuron.build, T=spec.T, mean=spec.mean, std=spec.std
        )
        if base == "poisson":
            net = Poisson(net, declared=True)
        number_layers(net)
        _train(net, dataset, base == "at", seed, epochs)
    return net.eval().requires_grad_(False)


def _train(net: nn.Module, dataset: Dataset, adversarial: bool, seed: int, epochs: int) -> None:
    x, y = pixels(dataset.x_train), dataset.y_train
    updates = epochs * -(-len(x) // _BATCH)
    optimizer = torch.optim.SGD(net.parameters(), _LR, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=updates)
    threat = Threat(EPS)
    for epoch in range(epochs):
        for rows in torch.randperm(len(x)).split(_BATCH):
            images = x[rows]
            if adversarial:
                rng = CounterRNG(derive_key("audit at", seed, epoch), rows)
                images = pgd(net, images, y[rows], threat, steps=2, alpha=float(EPS) / 2, rng=rng)[2].last
            net.train()
            optimizer.zero_grad()
            functional.cross_entropy(net(images), y[rows]).backward()
            optimizer.step()
            schedule.step()
