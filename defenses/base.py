"""What a defense is, and what it means to add two."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import Any, ClassVar

from torch import Tensor, nn

from attacks.threat import Box
from models.neurons import NeuronSpec
from models.random import CounterRNG


class ConflictError(ValueError):
    """Two defenses that cannot both hold."""


@dataclass(frozen=True)
class Setting:
    """What a part may need to know about the run to settle its open values.

    Attributes:
        model: name of the architecture.
        train_eps: the data set's usual eps for adversarial training, in pixel units.
        box: what inputs may hold.
        T: time steps.
        frames: whether inputs are frames [N, T, C, H, W], one for each step, and not one image for all.
        eps: the eps that the data set is attacked with, in pixel units; None if nobody says.
    """

    model: str
    train_eps: Fraction
    box: Box = field(default_factory=Box)
    T: int = 4
    frames: bool = False
    eps: Fraction | None = None


@dataclass
class Step:
    """One training step as a penalty sees it.

    Attributes:
        model: the network, in train mode.
        x: the batch as trained on (after any perturbation), [N, *].
        y: labels [N].
        logits: its logits [N, K], with graph.
        membrane: layer name -> potential [T, N, *] before noise and reset, with graph, see `record_membrane`;
            filled only if a part sets `observes_membrane`.
        currents: of the last spiking layer, [T, N, *] before its neuron scales them, with graph; None unless a part
            sets `observes_currents`.
        progress: share of the epochs done, 0 in the first, 1 in the last.
        clean: the batch before any perturbation, [N, *].
        rng: this step's random numbers, by image.
        same_noise: opens a block in which one forward call meets the noise that `logits` met.
        over_time: per-step logits [T, N, K] with graph, whose mean `logits` are; only if a part sets `observes_steps`.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    logits: Tensor
    membrane: dict[str, Tensor]
    progress: float
    clean: Tensor
    rng: CounterRNG
    same_noise: Callable[[], AbstractContextManager[None]] = nullcontext
    currents: Tensor | None = None
    over_time: Tensor | None = None

    @property
    def is_clean(self) -> bool:
        """Whether no part perturbed the batch, so that `x` holds the very numbers of `clean`."""
        return self.x.data_ptr() == self.clean.data_ptr()


@dataclass(frozen=True)
class Part:
    """One idea of a defense. A subclass overrides the hooks it needs; its fields are its hyper-parameters.

    Class attributes:
        name: unique name of the idea, part of every key.
        slot: at most one part of a defense may fill a slot (`encoding`, `neuron`, `input`, `loss`, `weights`); None is
            free.
        observes_membrane: ask for `Step.membrane`.
        observes_currents: ask for `Step.currents`.
        observes_steps: ask for `Step.over_time`.
        needs_input_gradient: ask for `Step.x` to require grad.
        weight_decay: overrides the training recipe's, unless None.
        version: raise it when a change of code may change the trained weights.
    """

    name: ClassVar[str]
    slot: ClassVar[str | None] = None
    observes_membrane: ClassVar[bool] = False
    observes_currents: ClassVar[bool] = False
    observes_steps: ClassVar[bool] = False
    needs_input_gradient: ClassVar[bool] = False
    weight_decay: ClassVar[float | None] = None
    version: ClassVar[int] = 1

    def settled(self, setting: Setting) -> "Part":
        """This part with every open (None) hyper-parameter filled in for `setting`.

        Raises:
            ValueError: a hyper-parameter that makes no sense there.
        """
        return self

    def neuron(self, spec: NeuronSpec) -> NeuronSpec:
        """The neuron that the network is built from, given the one planned so far."""
        return spec

    def encoder(self) -> str:
        """The written form of the encoding that the network is built with, see `models.encoding`; empty for none."""
        return ""

    def before_epoch(self, model: nn.Module, progress: float) -> None:
        """Set up the network for an epoch; `progress` is the share of the epochs done, 0 in the first, 1 in the last.

        A resumed training calls it for the epoch that it goes on with.
        """

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, rng: CounterRNG) -> Tensor:
        """The inputs to train on, [N, *] inside the data set's box, given the clean ones."""
        return x

    def task_loss(self, step: Step) -> Tensor | None:
        """The scalar in place of the cross-entropy of `step.logits`, or None."""
        return None

    def penalty(self, step: Step) -> Tensor | None:
        """A scalar to add to the loss, or None."""
        return None

    def before_update(self, model: nn.Module) -> None:
        """Change the weights' gradients in place before an optimiser step."""

    def after_update(self, model: nn.Module, key: int) -> None:
        """Change the weights in place after an optimiser step; `key` seeds any randomness."""

    def extra_passes(self) -> float:
        """Cost per training image beyond the vanilla forward and backward pass, in such passes; for estimates."""
        return 0.0

    def identity(self) -> dict[str, Any]:
        """What of this part can change the trained weights."""
        values = {key: str(value) if isinstance(value, Fraction) else value for key, value in asdict(self).items()}
        return {"part": self.name, "version": self.version, **values}


@dataclass(frozen=True)
class Defense:
    """A named set of parts. `a + b` has the parts of both.

    Attributes:
        name: as written on the command line, strategies (at, rat) last.
        parts: the ideas. Their hooks run in the order of the parts' names, so that a sum has no order.
        strategy: a train strategy in the paper's sense; sorts last in a sum's name.
    """

    name: str
    parts: tuple[Part, ...] = ()
    strategy: bool = False
    _terms: tuple[tuple[bool, str], ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(sorted(self.parts, key=lambda part: part.name)))

    def __add__(self, other: "Defense") -> "Defense":
        """The defense that does both. Parts that both have, with equal values, count once.

        Raises:
            ConflictError: both fill one slot differently, or one idea comes with two settings.
        """
        parts = list(self.parts)
        for part in other.parts:
            if part in parts:
                continue
            for held in parts:
                if held.name == part.name:
                    raise ConflictError(
                        f"'{self.name}' and '{other.name}' both contain '{part.name}', with different settings: "
                        f"{_difference(held, part)}"
                    )
                if held.slot is not None and held.slot == part.slot:
                    raise ConflictError(
                        f"'{self.name}' and '{other.name}' cannot be combined: "
                        f"'{held.name}' and '{part.name}' both decide the {part.slot}"
                    )
            parts.append(part)
        terms = dict.fromkeys((*self.terms, *other.terms))
        # vanilla adds nothing, so a sum need not mention it.
        named = tuple(term for term in terms if term[1] != "vanilla") or tuple(terms)
        ordered = tuple(sorted(named, key=lambda term: term[0]))
        return Defense("+".join(name for _, name in ordered), tuple(parts), _terms=ordered)

    @property
    def terms(self) -> tuple[tuple[bool, str], ...]:
        """The summands as (is a strategy, name)."""
        return self._terms or ((self.strategy, self.name),)

    def settled(self, setting: Setting) -> "Defense":
        """This defense with every open hyper-parameter filled in for `setting`."""
        return Defense(self.name, tuple(part.settled(setting) for part in self.parts), self.strategy, self._terms)

    def neuron(self, spec: NeuronSpec) -> NeuronSpec:
        """The neuron to build the network from."""
        for part in self.parts:
            spec = part.neuron(spec)
        return spec

    @property
    def encoder(self) -> str:
        """The encoding to build the network with."""
        return next(filter(None, (part.encoder() for part in self.parts)), "")

    def identity(self) -> list[dict[str, Any]]:
        """What of this defense can change the trained weights; the order of a sum cannot."""
        return [part.identity() for part in self.parts]


def _difference(a: Part, b: Part) -> str:
    names = [f.name for f in fields(a) if getattr(a, f.name) != getattr(b, f.name)]
    return ", ".join(f"{name} = {getattr(a, name)} against {getattr(b, name)}" for name in names)
