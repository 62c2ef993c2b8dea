"""Verdicts on disk: one file for each network, budget and limits, extended image by image."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from attacks.threat import Threat
from bench.atomic import write_atomically
from bench.canonical import canonical_json
from bench.errors import BenchError
from bench.spec import ModelSpec, identity, identity_of, key_of
from bench.truth.exact import Limits, Verdict
from bench.truth.images import verdicts

TRUTH_VERSION = 1

_SAVE_EVERY = 5.0


@dataclass(frozen=True)
class TruthSpec:
    """What a verdict depends on, beside the image's number.

    Attributes:
        sha256: of the weights.
        model: the network they are run as, without noise.
        test_hash: of the decoded test set.
        eps, low, high: the l_inf ball and the box.
        nodes, programs, seconds: see `Limits`.
    """

    sha256: str = identity()
    model: ModelSpec = identity()
    test_hash: str = identity()
    eps: Fraction = identity()
    low: float = identity()
    high: float = identity()
    nodes: int = identity()
    programs: int = identity()
    seconds: float | None = identity()
    version: int = identity(default=TRUTH_VERSION)


@dataclass(frozen=True)
class Truth:
    """The verdicts on the first images of a test set.

    Attributes:
        verdicts: one an image.
        seconds: what finding them took, earlier calls included.
    """

    verdicts: tuple[Verdict, ...]
    seconds: float

    def count(self, status: str) -> int:
        """How many images have a status."""
        return sum(verdict.status == status for verdict in self.verdicts)


def find_truth(
    folder: Path,
    spec: TruthSpec,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    advance: Callable[[int, Verdict | None], None] = lambda count, verdict: None,
) -> Truth:
    """The verdicts on images, those on disk first, the others computed and written.

    Args:
        folder: where the files are.
        spec: belongs to `model`, `x` and `y`.
        model, x, y: as `verdicts`.
        advance: told how many more images are known, and the verdict if it is new.

    Raises:
        BenchError: a damaged file, or a folder that cannot be written.
    """
    path = folder / f"{key_of(spec)[:16]}.json"
    known = _load(path, spec)
    found, seconds = list(known.verdicts[: len(x)]), known.seconds
    advance(len(found), None)
    if len(found) == len(x):
        return Truth(tuple(found), seconds)
    limits = Limits(spec.nodes, spec.programs, spec.seconds)
    rest = verdicts(model, x[len(found) :], y[len(found) :], Threat(spec.eps, low=spec.low, high=spec.high), limits)
    began = saved = time.perf_counter()
    try:
        for verdict in rest:
            found.append(verdict)
            advance(1, verdict)
            if time.perf_counter() - saved > _SAVE_EVERY:
                saved = time.perf_counter()
                _save(path, spec, Truth(tuple(found), seconds + saved - began))
    finally:
        # Ctrl-C loses nothing but the image it came in.
        truth = Truth(tuple(found), seconds + time.perf_counter() - began)
        if len(found) > len(known.verdicts):
            _save(path, spec, truth)
    return truth


def _save(path: Path, spec: TruthSpec, truth: Truth) -> None:
    lines = [
        asdict(verdict) | {"witness": None if verdict.witness is None else verdict.witness.tolist()}
        for verdict in truth.verdicts
    ]
    content = {"spec": identity_of(spec), "seconds": truth.seconds, "verdicts": lines}
    write_atomically(path, json.dumps(content).encode())


def _load(path: Path, spec: TruthSpec) -> Truth:
    if not path.exists():
        return Truth((), 0.0)
    try:
        content = json.loads(path.read_text())
        lines = [Verdict(**line) for line in content["verdicts"]]
        seconds, stored = float(content["seconds"]), canonical_json(content["spec"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"'{path}' is damaged ({error}); delete it to compute it again") from error
    if stored != canonical_json(identity_of(spec)):
        raise BenchError(f"'{path}' belongs to another network; delete it to compute it again")
    witnesses = [None if line.witness is None else np.array(line.witness, dtype=np.float64) for line in lines]
    found = [
        Verdict(line.status, witness, line.nodes, line.programs, line.reason)
        for line, witness in zip(lines, witnesses, strict=True)
    ]
    return Truth(tuple(found), seconds)
