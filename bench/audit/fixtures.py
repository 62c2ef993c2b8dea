"""Networks with a known fault, each built around one small trained network: what the audit must catch, and must not."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.pgd import pgd
from attacks.threat import Threat
from bench.audit.spec import AuditSpec
from bench.data.dataset import Dataset
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
_LAYER = 99
_SPREAD = 10.0


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
    """Pixels are firing rates: each step sees a fresh binary image.

    Args:
        declared: whether it says that it is random, and draws from the noise stream.
        differentiable: whether the gradient passes straight through the sampling; snnTorch's and SpikingJelly's
            encoders compare with random numbers, which has no gradient.
    """

    def __init__(self, net: nn.Module, declared: bool = True, differentiable: bool = True) -> None:
        super().__init__(net)
        self.stochastic, self.differentiable = declared, differentiable

    def forward(self, x: Tensor) -> Tensor:
        rates = x[None].expand(_FRAMES, *x.shape)
        stream = active_noise_stream() if self.stochastic else None
        # The normal distribution function makes uniform numbers of normal ones.
        u = torch.rand(rates.shape) if stream is None else torch.special.ndtr(stream.normal(rates, _LAYER))
        spikes = (u.to(x.device) < rates).to(x.dtype)
        if self.differentiable:
            spikes = rates + (spikes - rates).detach()
        return super().forward(spikes.transpose(0, 1))


class RandomGradient(Wrapped):
    """Leaves the image as it is and multiplies its gradient by noise of mean 1: every draw points elsewhere."""

    stochastic = True

    def forward(self, x: Tensor) -> Tensor:
        stream = active_noise_stream()
        noise = torch.randn(x.shape) if stream is None else stream.normal(x[None], _LAYER)[0]
        nothing = _SPREAD * noise.to(x) * x
        return super().forward(x + (nothing - nothing.detach()))


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


def _poisson(net: nn.Module, **options: bool) -> nn.Module:
    assert isinstance(net, Poisson)
    return Poisson(net.net, **options)


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
    Fixture("random gradient", "vanilla", RandomGradient, ("eot",)),
    Fixture("poisson without gradient", "poisson", partial(_poisson, differentiable=False), ("zero gradient",)),
    Fixture("poisson undeclared", "poisson", partial(_poisson, declared=False), ("undeclared noise",)),
    Fixture("sound: vanilla", "vanilla", _same),
    Fixture("sound: adversarially trained", "at", _same),
    Fixture("sound: noisy neurons", "nlif", _same),
    Fixture("sound: poisson, straight through", "poisson", _same),
)


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
            net = Poisson(net)
        number_layers(net)
        _train(net, dataset, base == "at", seed, epochs)
    return net.eval().requires_grad_(False)


def _train(net: nn.Module, dataset: Dataset, adversarial: bool, seed: int, epochs: int) -> None:
    x, y = dataset.pixels(dataset.x_train), dataset.y_train
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
