"""What an attack is to the harness: a function, its name's grammar, its defaults, its cost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor


class Candidate(NamedTuple):
    """What an attack proposes after some number of steps.

    Attributes:
        last: the last iterate [N, *], what the literature scores.
        best: the visited iterate with the largest margin loss [N, *]; scoring it too gives the `any iterate` reading.
    """

    last: Tensor
    best: Tensor


Path = Mapping[int, Candidate]
"""Candidates by step count: one run of PGD-40 also holds PGD-7, 10 and 20."""

Cost = Callable[[int], tuple[int, int]]


@dataclass(frozen=True)
class Attack:
    """An attack as the registry holds it.

    Attributes:
        run: `run(model, x, y, threat, *, rng, **params)`, returning x_adv [N, *]. With `takes_steps` it is also
            given `steps`; with `shares_trajectory` also `snapshots`, the step counts at which to keep a
            candidate, and returns a `Path` that has them.
        summary: one line for listings.
        takes_steps: whether the name ends in a step count (`pgd40`).
        defaults: parameters and their default values; a parameter outside this set is refused.
            A default of None is filled in from the threat model, see `alpha_per_eps`.
        shares_trajectory: whether fewer steps are a prefix of more, so that one run serves several step counts.
            False for an attack whose schedule looks at the step count.
        added: parameters that came after results were stored: left out of keys at their default.
        alpha_per_eps: where `defaults` has an `alpha` of None, alpha = eps times this.
        norms: the norms it can work in; with the domain `events` that alone.
        cost: from the step count to (forward passes, backward passes) per sample.
        eot: gradients of a stochastic network are means over so many draws, unless the user says otherwise.
        deterministic_only: whether it is refused for stochastic networks.
        images_only: whether it cannot attack frames [N, T, C, H, W].
        own_batches: whether it calls the model with batches of its own making. A stochastic network then draws
            its noise from torch's generator, seeded for the chunk, since its rows cannot be told apart.
        stepwise: of an ensemble: the value of its parameter `without` that leaves out the members that need layers
            whose whole train is known, see `LIF.whole`.
        own_gradients: whether its members bring gradients of their own, so that the user's @gradient makes no sense.
        least_classes: it needs at least so many.
        settle: for an attack whose parameters are another library's: `settle(name, given)` reads what follows
            the colon (`art:DeepFool:max_iter=50` gives "DeepFool" and {"max_iter": "50"}) and returns the
            parameters to call `run` with; it raises ValueError where they make no sense.
        backend: names whatever else the result depends on, "pyautoattack 0.2.0" or the members of an ensemble;
            part of every result's key.
        version: part of every result's key; raise it when a change of code may change an outcome.
        domain: `frames` where candidates are what a network is given, images included; `events` where they are
            recordings, see `attacks.events.base`.
        pool: with `events`: whether it takes events from recordings of the training set.
        kinds: with `events`: the kinds of edit that it makes, of `added`, `removed` and `shifted`; where nothing is
            said, rules that leave it nothing to do are not noticed.
        check: `check(params, threat)` raises ValueError for parameters that it cannot work with, so that they are
            refused before a network is trained. `run` should call the same.
    """

    run: Callable[..., Any]
    summary: str
    takes_steps: bool = False
    shares_trajectory: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    alpha_per_eps: str = "51/160"
    norms: tuple[str, ...] = ("linf", "l2")
    cost: Cost = lambda steps: (max(steps, 1), max(steps, 1))
    eot: int = 1
    deterministic_only: bool = False
    images_only: bool = False
    own_batches: bool = False
    own_gradients: bool = False
    stepwise: str = ""
    least_classes: int = 2
    settle: Callable[[str, Mapping[str, str]], dict[str, Any]] | None = None
    backend: Callable[[], str] | None = None
    version: int = 1
    domain: str = "frames"
    pool: bool = False
    kinds: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any], Any], None] | None = None

    def __post_init__(self) -> None:
        if self.domain not in ("frames", "events"):
            raise ValueError(f"domain must be frames or events, got '{self.domain}'")
        if self.domain == "events":
            if self.shares_trajectory:
                raise ValueError("an attack on events is run once for each step count; leave out shares_trajectory")
            object.__setattr__(self, "norms", ("events",))
        elif self.kinds:
            raise ValueError("kinds are of edits of events; give domain='events' too")

    def refuse(self, params: Mapping[str, Any], threat: Any) -> None:
        """Refuse what the attack could do nothing with, before anything is computed.

        Args:
            params: its own parameters, all of them.
            threat: its threat model, an `EventThreat` with `events`.

        Raises:
            ValueError: rules that forbid all its kinds of edit, or what its own check refuses.
        """
        if self.kinds:
            threat.check_kinds(self.kinds)
        if self.check is not None:
            self.check(params, threat)


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value a sample, [N], so that it broadcasts over `like` [N, *]."""
    return values.view(-1, *[1] * (like.dim() - 1))
