"""Where an audit's measurements are taken: one network under one threat model, each attack run once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.gradients import frozen
from attacks.gradients.estimation import takes_whole_trains
from attacks.threat import Box
from bench.audit.paired import stands
from bench.audit.spec import AuditSpec
from bench.data.dataset import Dataset
from bench.evaluation import evaluate
from bench.outcome import Flag, Outcome
from bench.resolve import parse_attack
from bench.spec import CellSpec
from models.neurons import is_stochastic, spiking_layers
from models.random import NOISE_VERSION, derive_key, noise_stream

DRAWS = 5
"""Scoring draws of a stochastic network."""


@dataclass
class Lab:
    """A network, the images it is audited on, and what was measured so far.

    Attributes:
        model: the network, on `device`.
        dataset: its first `spec.n` test images are used.
        spec: weights, model, norm, eps.
        device: where to compute.
        tick: called after each measurement.
    """

    model: nn.Module
    dataset: Dataset
    spec: AuditSpec
    device: torch.device
    tick: Callable[[], None] = lambda: None
    outcomes: dict[tuple[str, Fraction], Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.x = self.dataset.pixels(self.dataset.x_test[: self.spec.n], self.device)
        self.y = self.dataset.y_test[: self.spec.n].to(self.device)
        self.samples = torch.arange(self.spec.n, device=self.device)

    @property
    def classes(self) -> int:
        return self.dataset.num_classes

    @property
    def stochastic(self) -> bool:
        return is_stochastic(self.model)

    @property
    def spiking(self) -> bool:
        """Whether there are spikes that an attacker may differentiate in other ways."""
        return bool(spiking_layers(self.model))

    @property
    def whole_trains(self) -> bool:
        """Whether every gradient works on the network, see `takes_whole_trains`."""
        return takes_whole_trains(self.model)

    @property
    def whole_range(self) -> Fraction:
        """The budget with which every image can be reached."""
        if self.spec.norm == "linf":
            return Fraction(self.spec.high)
        return Fraction(int(np.ceil(self.spec.high * self.x[0].numel() ** 0.5)))

    def outcome(self, attack: str, eps: Fraction | None = None, steps: Sequence[int] = ()) -> Outcome:
        """What an attack leaves of the network, measured as a cell is.

        Args:
            attack: as on the command line.
            eps: budget; the audit's own if not given.
            steps: further step counts that the same run serves and that will be asked for.

        Raises:
            BenchError: the attack failed, for example where the network has no gradient.
        """
        budget = self.spec.eps if eps is None else eps
        if (attack, budget) not in self.outcomes:
            names = [attack, *(attack.replace(_digits(attack), str(count), 1) for count in steps)]
            cells = {name: self._cell(name, budget) for name in names}
            parts: dict[str, list[Outcome]] = {name: [] for name in names}
            for chunk in evaluate(self.model, self.dataset, list(cells.values()), device=self.device):
                for name, cell in cells.items():
                    parts[name].append(chunk.outcomes[cell])
            for name in names:
                self.outcomes[name, budget] = Outcome.concatenate(parts[name])
            self.tick()
        return self.outcomes[attack, budget]

    def stands(self, attack: str, eps: Fraction | None = None, steps: Sequence[int] = ()) -> NDArray[np.bool_]:
        """Which images survive an attack, bool [N]; see `outcome`."""
        return stands(self.outcome(attack, eps, steps))

    def logits(self, x: Tensor | None = None, *, key: int = 0) -> Tensor:
        """One draw's logits [N, K] for x, by default the images themselves."""
        with frozen(self.model), torch.no_grad(), noise_stream(self.model, key, self.samples):
            logits: Tensor = self.model(self.x if x is None else x)
        return logits

    def flagged(self, flag: Flag) -> NDArray[np.bool_]:
        """Images that any attack so far gave a flag, bool [N]."""
        flags = [outcome.flags & flag != 0 for outcome in self.outcomes.values()]
        return np.any(flags, axis=0) if flags else np.zeros(self.spec.n, bool)

    def _cell(self, attack: str, eps: Fraction) -> CellSpec:
        spec = parse_attack(attack, str(eps), self.spec.norm, box=Box(high=self.spec.high))
        return CellSpec(
            weights=self.spec.weights,
            model=self.spec.model,
            test_hash=self.spec.test_hash,
            n=self.spec.n,
            attack=spec if self.stochastic else replace(spec, eot=1),
            draws=DRAWS if self.stochastic else 1,
            attack_seed=derive_key("audit") % 2**31,
            dataset=self.dataset.name,
            defense_name="audited",
            seed=0,
            noise_version=NOISE_VERSION if self.stochastic else 1,
        )


def _digits(attack: str) -> str:
    head = attack.partition(":")[0].partition("@")[0]
    return "".join(c for c in head if c.isdigit())
