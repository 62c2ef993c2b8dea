"""What is run, as values; and the keys that say when two runs are the same.

Every field is declared either `identity` (it can change an outcome, so it is part
of the key) or `runtime` (it cannot). A field without a declaration fails a test.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from fractions import Fraction
from typing import Any

from bench.canonical import canonical_json
from models.neurons import NeuronSpec
from models.random import NOISE_VERSION

TRAINING_VERSION = 1
EVALUATION_VERSION = 1
ARITHMETICS = ("fast", "bf16", "reference")
"""Float32 by whatever gives the bits of the torch operations soonest; convolutions and neurons in bfloat16, which
moves what is measured; the equations of the neuron and autograd, slowly."""


def identity(**options: Any) -> Any:
    """A field that can change an outcome."""
    return field(metadata={"role": "identity"}, **options)


def added(default: Any) -> Any:
    """An identity field that came later: at its default it is left out of the key, so that stored cells keep theirs."""
    return field(default=default, metadata={"role": "identity", "added": True})


def runtime(**options: Any) -> Any:
    """A field that cannot change an outcome: labels, devices, batch sizes."""
    return field(metadata={"role": "runtime"}, **options)


@dataclass(frozen=True)
class ModelSpec:
    """An architecture with everything needed to build it."""

    name: str = identity()
    num_classes: int = identity()
    in_shape: tuple[int, int, int] = identity()
    T: int = identity()
    neuron: NeuronSpec = identity()
    mean: tuple[float, ...] = identity()
    std: tuple[float, ...] = identity()
    fingerprint: str = identity(default="")


@dataclass(frozen=True)
class Recipe:
    """How long and how a network is trained.

    Attributes:
        epochs, batch_size: as usual.
        lr, momentum, weight_decay: SGD; the learning rate follows a cosine to 0 over all updates.
        augment: random crop with padding 4 and horizontal flip.
        train_size: the first so many training images; 0 means all.
        holdout: the last so many of those are kept from training, for the per-epoch log.
        arithmetic: one of `ARITHMETICS`.
    """

    epochs: int = identity()
    batch_size: int = identity()
    lr: float = identity(default=0.1)
    momentum: float = identity(default=0.9)
    weight_decay: float = identity(default=5e-4)
    augment: bool = identity(default=False)
    train_size: int = identity(default=0)
    holdout: int = identity(default=0)
    arithmetic: str = added("fast")


@dataclass(frozen=True)
class TrainSpec:
    """One training run."""

    model: ModelSpec = identity()
    recipe: Recipe = identity()
    defense: tuple[Mapping[str, Any], ...] = identity()
    train_hash: str = identity()
    seed: int = identity()
    log_eps: Fraction = runtime()
    defense_name: str = runtime()
    dataset: str = runtime()
    version: int = identity(default=TRAINING_VERSION)
    fingerprint: str = identity(default="")
    noise_version: int = added(1)


@dataclass(frozen=True)
class AttackSpec:
    """A resolved attack: every parameter that it will be called with.

    Attributes:
        surrogate: written form of the gradient that the attacker differentiates spikes by; None is the model's own.
        surrogate_version, ball_version: of their code.
        arithmetic: one of `ARITHMETICS`; with `bf16` it is the attack that computes so, and not the scoring.
        eot: gradients are means over so many draws of the model's noise; always 1 for a deterministic model.
    """

    family: str = identity()
    steps: int = identity()
    params: tuple[tuple[str, Any], ...] = identity()
    restarts: int = identity()
    version: int = identity()
    norm: str = identity()
    eps: Fraction = identity()
    low: float = identity()
    high: float = identity()
    surrogate: str | None = identity()
    name: str = runtime()
    shares_trajectory: bool = runtime(default=False)
    fingerprint: str = identity(default="")
    eot: int = added(default=1)
    surrogate_version: int = added(default=1)
    ball_version: int = added(default=1)
    arithmetic: str = added(default="fast")


@dataclass(frozen=True)
class CellSpec:
    """One trained network under one attack: the unit that is planned, cached, resumed and shown.

    Attributes:
        weights: `train:KEY` for weights we train, `file:SHA256` for a given checkpoint.
        test_hash: of the decoded test set.
        n: the first so many test images.
        draws: scoring draws for each image (1 for a deterministic model).
        attack_seed: selects the attack's random numbers.
        noise_version: of the generator of a noisy network's noise.
    """

    weights: str = identity()
    model: ModelSpec = identity()
    test_hash: str = identity()
    n: int = identity()
    attack: AttackSpec = identity()
    draws: int = identity()
    attack_seed: int = identity()
    dataset: str = runtime()
    defense_name: str = runtime()
    seed: int = runtime()
    dtype: str = identity(default="float32")
    version: int = identity(default=EVALUATION_VERSION)
    noise_version: int = added(1)


def noise_version(cell: CellSpec) -> int:
    """What `noise_version` a cell of this network has if it is measured now."""
    noisy = cell.noise_version > 1 or cell.model.neuron.kind != NeuronSpec().kind
    return NOISE_VERSION if noisy else 1


def identity_of(value: Any) -> Any:
    """The identity fields of a spec as plain JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        declared = [f for f in fields(value) if f.metadata.get("role", "identity") == "identity"]
        declared = [f for f in declared if not ("added" in f.metadata and getattr(value, f.name) == f.default)]
        return {f.name: identity_of(getattr(value, f.name)) for f in declared}
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): identity_of(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [identity_of(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} cannot be part of a key")


def key_of(value: Any) -> str:
    """SHA-256 (hex) of a spec's identity."""
    return hashlib.sha256(canonical_json(identity_of(value)).encode()).hexdigest()


def randomness_key(cell: CellSpec) -> str:
    """Names the random numbers of an attack run.

    Left out is what must not change an image's random numbers: the step count, the restarts
    and the draws of a mean gradient (more of these continue what fewer did), when to stop, how numbers are rounded,
    how many images are attacked, and how they are scored.
    """
    plain = identity_of(cell)
    plain["attack"]["params"] = [param for param in plain["attack"]["params"] if param[0] != "early_stop"]
    plain["attack"].pop("arithmetic", None)
    plain["attack"].pop("steps")
    plain["attack"]["restarts"] = 1
    plain["attack"].pop("eot", None)
    plain.pop("n")
    plain.pop("draws")
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


def trajectory_key(cell: CellSpec) -> str:
    """Cells with one key can be served by one run of the attack."""
    attack = cell.attack
    steps = 0 if attack.shares_trajectory else attack.steps
    how = f"{attack.arithmetic}:{dict(attack.params).get('early_stop', False)}"
    return f"{randomness_key(cell)}:{steps}:{attack.restarts}:{attack.eot}:{cell.n}:{cell.draws}:{how}"
