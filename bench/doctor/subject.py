"""Which call of a registered attack is tested."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError

from attacks.base import Attack
from attacks.threat import Norm, format_eps
from bench.doctor.finding import NotApplicableError
from bench.doctor.oracle import BUDGETS
from bench.registry import ATTACKS
from bench.resolve import parse_attack
from bench.spec import AttackSpec

_STEPS: dict[Norm, int] = {"linf": 10, "l2": 20}
_QUERIES = 300
_DEAR = 1_000
_EXAMPLES = {"art": "ProjectedGradientDescentPyTorch:max_iter=20"}


@dataclass(frozen=True)
class Subject:
    """An attack as it is tested.

    Attributes:
        family: its registered name.
        attack: the attack itself.
    """

    family: str
    attack: Attack

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms to test it in."""
        return tuple(norm for norm in BUDGETS if norm in self.attack.norms)

    @property
    def dear(self) -> bool:
        """Whether it is only shown images that it can break, to end early."""
        return self.attack.cost(_STEPS["linf"])[0] > _DEAR

    def spec(self, norm: Norm) -> AttackSpec:
        """The call that is tested: few steps, the defaults otherwise."""
        text = self.family
        if self.attack.settle is not None:
            text = f"{self.family}:{_EXAMPLES[self.family]}"
        elif self.attack.takes_steps:
            text = f"{self.family}{_STEPS[norm] if self.attack.cost(1)[1] else _QUERIES}"
        return parse_attack(text, format_eps(BUDGETS[norm]), norm)


def subject(family: str) -> Subject:
    """The attack of a registered name.

    Raises:
        NotApplicableError: it attacks recordings; another library does its work, and that is not installed or needs to
            be told what to do.
        Exception: whatever importing it raises.
    """
    attack = ATTACKS.get(family)
    if attack.domain == "events":
        raise NotApplicableError("edits recordings of events, and the network of these tests sees images")
    if attack.backend is not None:
        try:
            attack.backend()
        except PackageNotFoundError as error:
            raise NotApplicableError(f"not installed: pip install {error.name}") from error
        except ValueError as error:
            raise NotApplicableError(str(error)) from error
    if attack.settle is not None and family not in _EXAMPLES:
        raise NotApplicableError("takes its name from another library, and no example of it is known here")
    return Subject(family, attack)
