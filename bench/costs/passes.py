"""What an attack run will do, counted: passes, calls and chunks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from attacks.base import Attack
from attacks.gradients.input import FOLDED_ROWS
from bench.proposal import CHUNK
from bench.registry import ATTACKS
from bench.spec import CellSpec


class Work(NamedTuple):
    """What takes time.

    Attributes:
        forwards, backwards: passes through the network, in images.
        calls: of the network, forwards and backwards each, whatever the number of images.
        chunks: of test images.
    """

    forwards: float
    backwards: float
    calls: float
    chunks: float

    def vector(self) -> NDArray[np.float64]:
        return np.array(self, dtype=np.float64)


@dataclass(frozen=True)
class Settings:
    """What of an attack run decides how long it takes; a stored one and a planned one alike.

    Attributes:
        family, surrogate, arithmetic: as in `AttackSpec`.
        early: images are left alone once they are broken.
        steps: step counts of the cells that the run serves.
        restarts, eot, n, draws: as in the specs.
        eps: budget in pixel units.
        norm: of the attack.
        params: the attack's other parameters, written down.
    """

    family: str
    surrogate: str | None
    arithmetic: str
    early: bool
    steps: tuple[int, ...]
    restarts: int
    eot: int
    n: int
    draws: int
    eps: float
    norm: str
    params: str

    @property
    def stops(self) -> bool:
        """Whether broken images are left alone, so that what an attack costs depends on how well it does."""
        return self.early or self.family in _STOPPING


_STOPPING = ("sweep", "snn-standard", "autoattack")


def settings_of(cells: Sequence[CellSpec]) -> Settings:
    """Of planned cells that one attack run serves."""
    first = cells[0]
    attack = first.attack
    early = any(name == "early_stop" and value for name, value in attack.params)
    return Settings(
        attack.family, attack.surrogate, attack.arithmetic, early,
        tuple(sorted(cell.attack.steps for cell in cells)), attack.restarts, attack.eot, first.n, first.draws,
        float(attack.eps), attack.norm, written(attack.params),
    )  # fmt: skip


def written(params: Sequence[tuple[str, object]]) -> str:
    """Parameters that may change how soon images break; the step size mostly follows eps."""
    return ",".join(f"{name}={value}" for name, value in params if name not in ("alpha", "early_stop"))


def planned(settings: Settings, share: float = 1.0) -> Work:
    """What an attack run will do, scoring included.

    Args:
        settings: of the run.
        share: of the passes that the attack says it costs at most.

    Raises:
        BenchError: nobody knows the attack.
    """
    attack: Attack = ATTACKS.get(settings.family)
    n, chunks = settings.n, -(-settings.n // CHUNK)
    forwards, backwards = attack.cost(max(max(settings.steps), 1))
    runs = settings.restarts * settings.eot
    # Pairs of candidates are compared after each further restart.
    compared = 4 * (settings.restarts - 1) * len(settings.steps)
    rows = n / chunks
    folded = max(1.0, min(float(settings.eot), FOLDED_ROWS // rows))
    crafting = (forwards + backwards) * runs / folded
    scored = scoring(settings, attack)
    return Work(
        n * (share * (forwards * runs + compared) + scored),
        n * share * backwards * runs,
        # One image that stands takes as many calls as many.
        chunks * (crafting + compared + scored),
        chunks,
    )


def scoring(settings: Settings, attack: Attack) -> int:
    """Forward passes for each image that are not the attack's: clean, placebo, last and strongest iterate."""
    candidates = 2 if attack.takes_steps and not settings.stops else 1
    return settings.draws * (2 + candidates * len(settings.steps))
