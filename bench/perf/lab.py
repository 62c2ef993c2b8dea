"""The networks of a subject, built once, and one attack on one of them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from attacks.base import Attack
from attacks.combinators import restarted
from attacks.external.hosting import hosted
from attacks.gradients import frozen
from attacks.threat import Threat
from bench.evaluation import CountedModel
from bench.peers.adapter import Arena
from bench.perf.contestants import NETWORKS, OURS, Contestant
from bench.perf.neurons import SpikingJellyNoisyLIF
from bench.perf.plain import build_plain
from bench.perf.subject import ALPHA, EPS, Subject, build_ours
from bench.registry import ATTACKS
from models.random import CounterRNG, noise_stream

STATES: Mapping[str, str] = {
    "tuned": "allocator tuned and weights frozen for all",
    "default": "default allocator, weights not frozen",
}
"""How contestants are run. Ours tunes and freezes by itself, in both."""
NOISY, BF16 = " with noise", " in bf16"
Build = Callable[[Subject, torch.dtype], nn.Module]


class Lab:
    """Builds each network once and keeps it.

    Args:
        subject: weights and images.
        device: where to compute.
        builders: further or other ways to build a network, by name.
    """

    def __init__(
        self, subject: Subject, device: torch.device | None = None, builders: Mapping[str, Build] | None = None
    ) -> None:
        self.subject = subject
        self.device = device or torch.device("cpu")
        self._builders = dict(builders or {})
        self._built: dict[str, nn.Module] = {}

    def network(self, name: str) -> nn.Module:
        """A network in float32, in eval mode, built the first time it is asked for."""
        if name not in self._built:
            self._built[name] = self.fresh(name)
        return self._built[name]

    def fresh(self, name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
        """A new copy of a network; a name that ends in `NOISY` has noisy neurons."""
        if name in self._builders:
            return self._builders[name](self.subject, dtype)
        kind, noisy = name.removesuffix(NOISY), name.endswith(NOISY)
        if kind == OURS:
            return build_ours(self.subject, noisy=noisy, dtype=dtype).to(self.device)
        entry = NETWORKS[kind]
        model = build_plain(self.subject.spec, SpikingJellyNoisyLIF if noisy else entry.neuron, entry.looped)
        model.load(self.subject.state)
        return model.to(self.device, dtype).eval()

    def batch(self, size: int) -> tuple[Tensor, Tensor]:
        """Images and labels on the device."""
        x, y = self.subject.batch(size)
        return x.to(self.device), y.to(self.device)

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def counted(model: nn.Module) -> CountedModel:
    """A network that counts its passes."""
    wrapped = CountedModel(model)
    wrapped.reset(torch.zeros(0, dtype=torch.int64))
    return wrapped.eval()


def craft(
    lab: Lab, contestant: Contestant, model: nn.Module, x: Tensor, y: Tensor, steps: int, kind: str = "pgd"
) -> Tensor:
    """One attack of one contestant on a network, from the image itself where it is PGD.

    Args:
        lab: whose device is used.
        contestant: whose attack.
        model: the network under attack.
        x, y: images [N, C, H, W] and labels [N].
        steps: of PGD.
        kind: `pgd`, `fgsm` or `rfgsm`; ours is asked for `pgd` only.

    Returns:
        candidates [N, C, H, W].
    """
    if contestant.library == OURS:
        return our_pgd(model, x, y, steps)
    arena = Arena(model, x.contiguous(), y, Threat(EPS), steps, ALPHA, lab.subject.spec.num_classes, 0)
    with _peer_generators():
        found: Tensor = getattr(contestant.attacks, kind)(arena)
    return found.detach()


def our_pgd(model: nn.Module, x: Tensor, y: Tensor, steps: int, noise_key: int | None = None) -> Tensor:
    """Our PGD from the image itself, by the path that `bench run` takes.

    Args:
        model: the network.
        x, y: images and labels.
        steps: gradient steps.
        noise_key: of a noisy network's counter-based noise.
    """
    attack: Attack = ATTACKS.get("pgd")
    samples = torch.arange(len(x), device=x.device)
    noise = nullcontext() if noise_key is None else noise_stream(model, noise_key, samples)
    with noise:
        path = restarted(attack, 1, model, x, y, Threat(EPS), rng=CounterRNG(1, samples), steps=(steps,),
                         alpha=ALPHA, random_start=False, loss="ce")  # fmt: skip
    return path[steps].last


@contextmanager
def _peer_generators() -> Iterator[None]:
    with hosted(0):
        yield


@contextmanager
def in_state(model: nn.Module, state: str) -> Iterator[None]:
    """The network as the state has it: frozen, or as its maker leaves it."""
    with frozen(model) if state == "tuned" else nullcontext():
        yield
