"""What another library's attack is given, and where libraries are found."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor, nn

from attacks.threat import Threat


@dataclass(frozen=True)
class Arena:
    """What an attack of another library is run on.

    Attributes:
        model: the network as a function, see `attacks.external.hosting.View`.
        x: images [N, C, H, W] in [0, 1], contiguous.
        y: labels [N].
        threat: linf; eps and box.
        steps: gradient steps, or steps for each target.
        alpha: step size in pixel units, for attacks that have one.
        classes: K.
        seed: for libraries that want one of their own; torch's, numpy's and Python's generators are seeded already.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    steps: int
    alpha: float
    classes: int
    seed: int

    @property
    def eps(self) -> float:
        """The budget as the nearest float."""
        return float(self.threat.eps)


@dataclass(frozen=True)
class Peer:
    """Another library.

    Attributes:
        name: as tables call it.
        package: what `pip install` wants.
        modules: import names, any of which will do.
        attacks: by kind of contest: from an arena to candidates [N, C, H, W].
        any_box: whether its attacks are told the box; others clip to [0, 1].
        frames: whether its attacks take inputs of any shape.
    """

    name: str
    package: str
    modules: tuple[str, ...]
    attacks: Mapping[str, Callable[[Arena], Tensor]]
    any_box: bool = False
    frames: bool = False

    def refusal(self, x: Tensor, threat: Threat) -> str:
        """Why it cannot attack inputs x [N, *] under a threat model; empty if it can."""
        if x.dim() != 4 and not self.frames:
            return f"{self.name} knows images only, not frames"
        if (threat.low, threat.high) != (0.0, 1.0) and not self.any_box:
            return f"{self.name} clips to [0, 1], and these inputs reach to {threat.high:g}"
        return "" if not threat.grid else f"{self.name} knows nothing of whole counts"

    @property
    def installed(self) -> bool:
        """Whether one of its modules can be imported."""
        return any(importlib.util.find_spec(module) is not None for module in self.modules)

    @property
    def release(self) -> str:
        """Name and version of the installed package."""
        try:
            return f"{self.package} {version(self.package)}"
        except PackageNotFoundError:
            return f"{self.package} of unknown version"


def load(module: str) -> Any:
    """Import a module by name, now."""
    return importlib.import_module(module)
