"""Weights the user brings: which network they belong to."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bench.checkpoint import fitting, hash_tensors, load_tensors
from bench.errors import BenchError
from bench.spec import ModelSpec, identity_of
from defenses.base import Defense


@dataclass(frozen=True)
class GivenWeights:
    """A checkpoint, by what can be said of it without a network.

    Attributes:
        path: the file.
        sha256: of its tensors.
        metadata: what `train` wrote into it, empty for others' files; as little to be trusted as the file.
    """

    path: Path
    sha256: str
    metadata: Mapping[str, Any]

    @property
    def defense(self) -> str:
        """The defense it was trained with, as written on the command line.

        Raises:
            BenchError: the file does not say.
        """
        name = self.metadata.get("defense")
        if not isinstance(name, str):
            raise BenchError(
                f"'{self.path}' does not say how it was trained: name its defense with -d, since the defense decides "
                "which neurons the network runs with (vanilla if nothing applies)"
            )
        # What a search found stands behind it in brackets.
        return name.partition(" (")[0]

    def fits(self, model: nn.Module) -> None:
        """Refuse weights that are not a network's.

        Args:
            model: the network; stays as it is.

        Raises:
            BenchError: see `bench.checkpoint.fitting`.
        """
        fitting(model, load_tensors(self.path)[0], self.path)

    def label(self, defense: Defense) -> str:
        """What tables call it."""
        return f"{defense.name} ({self.path.name})"

    def check(self, model: ModelSpec) -> None:
        """Refuse to run it as another network than it was trained as.

        Raises:
            BenchError: the file says something else than `model`.
        """
        spec = self.metadata.get("spec")
        trained = spec.get("model") if isinstance(spec, Mapping) else None
        if not isinstance(trained, Mapping):
            return
        asked = identity_of(model)
        wrong = [name for name in asked if name in trained and trained[name] != asked[name]]
        if wrong:
            name = wrong[0]
            was, now = trained[name], asked[name]
            if isinstance(was, Mapping) and isinstance(now, Mapping):
                part = next(key for key in now if was.get(key) != now[key])
                name, was, now = f"{name} {part}", was.get(part), now[part]
            raise BenchError(
                f"'{self.path}' was trained with {name} {was} and would run with {now}; "
                "give the options it was trained with (-d, --model, -T, --decay, --surrogate, --dataset)"
            )


def given_weights(path: Path) -> GivenWeights:
    """Read a checkpoint the user names.

    Raises:
        BenchError: missing, damaged, or not safetensors.
    """
    tensors, metadata = load_tensors(path)
    return GivenWeights(path, hash_tensors(tensors), metadata)
