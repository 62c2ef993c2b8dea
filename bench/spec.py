"""What is run, as values; and the keys that say when two runs are the same.

Every field is declared either `identity` (it can change an outcome, so it is part
of the key) or `runtime` (it cannot). A field without a declaration fails a test.
"""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from fractions import Fraction
from json.encoder import encode_basestring_ascii
from typing import Any

from bench.canonical import canonical_json
from bench.noise import draws_noise
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


class Spec:
    """Room beside the fields for what follows from them: a spec never changes, and its key is asked for often."""

    __slots__ = ("_key", "_text")


@dataclass(frozen=True, slots=True)
class ModelSpec(Spec):
    """An architecture with everything needed to build it.

    Attributes:
        in_shape: (C, H, W) of an image, or of each frame.
        T: time steps; of frames their number.
        frames: whether its inputs are frames [T, C, H, W], one for each step, and not one image for all.
        encoder: written form of what pixels become at each step, see `models.encoding`; empty for themselves.
        own_neurons: whether it brings neurons of its own, so that `neuron` says nothing of it.
    """

    name: str = identity()
    num_classes: int = identity()
    in_shape: tuple[int, int, int] = identity()
    T: int = identity()
    neuron: NeuronSpec = identity()
    mean: tuple[float, ...] = identity()
    std: tuple[float, ...] = identity()
    fingerprint: str = identity(default="")
    frames: bool = added(False)
    encoder: str = added("")
    own_neurons: bool = added(False)


@dataclass(frozen=True, slots=True)
class Recipe(Spec):
    """How long and how a network is trained.

    Attributes:
        epochs, batch_size: as usual.
        lr, momentum, weight_decay: SGD; the learning rate follows a cosine to 0 over all updates.
        augment: random crop with padding 4 and horizontal flip; of frames the crop alone, alike in all of a recording.
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


@dataclass(frozen=True, slots=True)
class TrainSpec(Spec):
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


@dataclass(frozen=True, slots=True)
class AttackSpec(Spec):
    """A resolved attack: every parameter that it will be called with.

    Attributes:
        norm: `linf`, `l2`, `linf-int` (linf over whole counts) or `events` (edits of recordings).
        eps: in pixel units, of frames in units of the dataset's scale; of `events` edits for each event.
        grid: with `linf-int`, how many counts make 1.0.
        surrogate: written form of the gradient that the attacker differentiates spikes by; None is the model's own.
        surrogate_version, ball_version: of their code; with `events` of the checker.
        arithmetic: one of `ARITHMETICS`; with `bf16` it is the attack that computes so, and not the scoring.
        eot: gradients are means over so many draws of the model's noise; always 1 for a deterministic model.
        rules: with `events`, what else than eps is not at its default, see `EventThreat.rules`.
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
    grid: int = added(default=0)
    rules: str = added(default="")


@dataclass(frozen=True, slots=True)
class CellSpec(Spec):
    """One trained network under one attack: the unit that is planned, cached, resumed and shown.

    Attributes:
        weights: `train:KEY` for weights we train, `file:SHA256` for a given checkpoint.
        test_hash: of the decoded test set.
        n: the first so many test images.
        draws: scoring draws for each image (1 for a deterministic model).
        attack_seed: selects the attack's random numbers.
        noise_version: of the generator of a noisy network's noise.
        recordings: of an attack on events, the hash of the recordings that it is given and of how they are framed.
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
    recordings: str = added("")


def noise_version(cell: CellSpec) -> int:
    """What `noise_version` a cell of this network has if it is measured now."""
    return NOISE_VERSION if is_noisy(cell) else 1


def is_noisy(cell: CellSpec) -> bool:
    """Whether the network under a cell draws noise."""
    # The first is all that says it of a network with code of its own.
    return cell.noise_version > 1 or draws_noise(cell.model.neuron, cell.model.encoder)


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
    if not isinstance(value, Spec):
        return hashlib.sha256(canonical_json(identity_of(value)).encode()).hexdigest()
    held: str | None = getattr(value, "_key", None)
    if held is None:
        held = hashlib.sha256(_text_of(value).encode()).hexdigest()
        object.__setattr__(value, "_key", held)
    return held


def randomness_key(cell: CellSpec) -> str:
    """Names the random numbers of an attack run.

    Left out is what must not change an image's random numbers: the step count, the restarts
    and the draws of a mean gradient (more of these continue what fewer did), when to stop, how numbers are rounded,
    how many images are attacked, and how they are scored.
    """
    plain = identity_of(cell)
    plain["attack"] = _randomness(cell.attack)
    plain.pop("n")
    plain.pop("draws")
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()


def _randomness(attack: AttackSpec) -> dict[str, Any]:
    """What of an attack's identity its random numbers depend on."""
    plain: dict[str, Any] = identity_of(attack)
    plain["params"] = [param for param in plain["params"] if param[0] != "early_stop"]
    plain["restarts"] = 1
    for name in ("steps", "arithmetic", "eot"):
        plain.pop(name, None)
    return plain


def trajectory_key(cell: CellSpec) -> str:
    """Cells with one key can be served by one run of the attack."""
    return f"{randomness_key(cell)}:{cell.n}:{cell.draws}:{_run(cell.attack)}"


def trajectory_of(attack: AttackSpec) -> str:
    """As `trajectory_key`, for cells that differ in their attacks only."""
    return f"{canonical_json(_randomness(attack))}:{_run(attack)}"


def _run(attack: AttackSpec) -> str:
    """What makes attacks with the same random numbers different runs."""
    steps = 0 if attack.shares_trajectory else attack.steps
    how = f"{attack.arithmetic}:{dict(attack.params).get('early_stop', False)}"
    return f"{steps}:{attack.restarts}:{attack.eot}:{how}"


def _text_of(value: Any) -> str:
    """`canonical_json(identity_of(value))`, put together from the texts that models and attacks keep.

    A plan has millions of cells and a thousand models and attacks.
    """
    if not isinstance(value, Spec):
        return canonical_json(identity_of(value))
    held: str | None = getattr(value, "_text", None)
    if held is not None:
        return held
    declared: Any = type(value)
    parts = []
    for name, head, is_added, default in _layout(declared):
        item = getattr(value, name)
        if is_added and item == default:
            continue
        kind = type(item)
        if kind is str:
            parts.append(head + encode_basestring_ascii(item))
        elif kind is int:
            parts.append(head + int.__repr__(item))
        else:
            parts.append(head + _text_of(item))
    held = "{" + ",".join(parts) + "}"
    if not isinstance(value, CellSpec):
        object.__setattr__(value, "_text", held)
    return held


@functools.cache
def _layout(kind: Any) -> tuple[tuple[str, str, bool, Any], ...]:
    """The identity fields of a spec in the order of canonical JSON: name, what stands before the value, whether it was
    added later, and its default then."""
    declared = [f for f in fields(kind) if f.metadata.get("role", "identity") == "identity"]
    declared.sort(key=lambda f: f.name)
    return tuple((f.name, f"{encode_basestring_ascii(f.name)}:", "added" in f.metadata, f.default) for f in declared)
