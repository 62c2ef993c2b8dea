"""Is an image robust? Branch and bound over what the first layer can fire.

With direct encoding a first-layer neuron sees one constant current, so its train is a step function of that
current and the network's output depends on the image only through one train per neuron. The search
fixes these one neuron after the other and drops a partial pattern as soon as every completion is
classified right (`bounds`) or no image of the box produces it (`reach`). It ends at the first image that the
model itself, run on it, gets wrong.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.truth.bounds import OPEN, SLACK, Patterns, margin_bound, spike_ranges
from bench.truth.network import Array, Network
from bench.truth.reach import Reach
from bench.truth.sampling import lowest_margins

ROBUST, BROKEN, UNKNOWN = "robust", "broken", "unknown"

_BATCH = 2048

Fooled = Callable[[Array], bool]


@dataclass(frozen=True)
class Limits:
    """When to give up on an image and call it unknown.

    Attributes:
        nodes: patterns, partial ones included, whose margin is bounded.
        programs: linear programs.
        seconds: wall time; None does without, so that the result does not depend on the machine.
    """

    nodes: int = 2_000_000
    programs: int = 5_000
    seconds: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What was found out about one image.

    Attributes:
        status: `robust`: no image of the box is misclassified. `broken`: `witness` is. `unknown`: a limit was hit, or
            what is left of the box are only images within `SLACK` of a neuron's breakpoint or of a tie.
        witness: an image [P] of the box that the model gets wrong; the image itself if that is.
        nodes, programs: what it took.
        reason: of an unknown: `nodes`, `programs`, `seconds` or `edge`.
    """

    status: str
    witness: Array | None
    nodes: int
    programs: int
    reason: str = ""


def decide(
    network: Network,
    fooled: Fooled,
    image: Array,
    label: int,
    low: Array,
    high: Array,
    limits: Limits | None = None,
) -> Verdict:
    """Whether some image of a box is misclassified.

    Args:
        network: the network's weights.
        fooled: runs the model itself on an image [P]; True where its answer is wrong or a tie.
        image: the clean image, float64 [P], inside the box.
        label: its class.
        low, high: the box, float64 [P] each.
        limits: when to give up.
    """
    if fooled(image):
        return Verdict(BROKEN, image, 0, 0)
    search = _Search(network, fooled, label, Reach(network, low, high), limits or Limits())
    for candidate in lowest_margins(network, image, label, low, high):
        if fooled(candidate):
            return Verdict(BROKEN, candidate, 0, 0)
    return search.run()


class _Search:
    def __init__(self, network: Network, fooled: Fooled, label: int, reach: Reach, limits: Limits) -> None:
        self.network, self.fooled, self.label, self.reach, self.limits = network, fooled, label, reach, limits
        self.ranges = spike_ranges(network, reach.reachable)
        self.nodes = self.programs = 0
        self.deadline = None if limits.seconds is None else time.perf_counter() + limits.seconds
        self.reason = ""

    def run(self) -> Verdict:
        root = self._root()
        order = self._order(root)
        stack = [(0, self._dangerous(root)[0])]
        while stack and not self._exhausted():
            depth, patterns = stack.pop()
            if depth == len(order):
                witness = self._misclassified(patterns)
                if witness is not None:
                    return self._verdict(BROKEN, witness)
                continue
            patterns = self._expand(patterns, order[depth])
            patterns, bounds = self._dangerous(self.reach.surviving(patterns))
            # The most dangerous ones on top: a witness ends the search.
            patterns = patterns[np.argsort(-bounds, kind="stable")]
            stack += [(depth + 1, patterns[i : i + _BATCH]) for i in range(0, len(patterns), _BATCH)]
        return self._verdict(UNKNOWN if self.reason else ROBUST, None)

    def _verdict(self, status: str, witness: Array | None) -> Verdict:
        reason = self.reason if status == UNKNOWN else ""
        return Verdict(status, witness, self.nodes, self.programs, reason)

    def _root(self) -> Patterns:
        first, last = self.reach.reachable.T
        return np.where(first == last, first, OPEN).astype(np.int8)[None]

    def _order(self, root: Patterns) -> list[int]:
        """Open neurons, first those whose trains alone decide most about the margin."""
        open_neurons = np.flatnonzero(root[0] == OPEN)
        gains = []
        for neuron in open_neurons:
            _, bounds = self._bounded(self._expand(root, int(neuron)))
            gains.append(bounds.mean())
        return [int(open_neurons[i]) for i in np.argsort(-np.array(gains), kind="stable")]

    def _expand(self, patterns: Patterns, neuron: int) -> Patterns:
        first, last = self.reach.reachable[neuron]
        count = last - first + 1
        children = np.repeat(patterns, count, 0)
        children[:, neuron] = np.tile(np.arange(first, last + 1, dtype=np.int8), len(patterns))
        return children

    def _bounded(self, patterns: Patterns) -> tuple[Patterns, Array]:
        self.nodes += len(patterns)
        parts = [
            margin_bound(self.network, patterns[i : i + _BATCH], self.ranges, self.label)
            for i in range(0, len(patterns), _BATCH)
        ]
        return patterns, np.concatenate([*parts, np.empty(0)])

    def _dangerous(self, patterns: Patterns) -> tuple[Patterns, Array]:
        """Those of which some completion may be wrong or a tie."""
        patterns, bounds = self._bounded(patterns)
        kept: NDArray[np.bool_] = ~(bounds > SLACK)
        return patterns[kept], bounds[kept]

    def _misclassified(self, patterns: Patterns) -> Array | None:
        """An image that produces one of these complete patterns, which all stand for a wrong answer, and fools."""
        patterns = self.reach.surviving(patterns)
        if len(patterns):
            patterns = patterns[np.argsort(self._strain(patterns), kind="stable")]
        while len(patterns) and not self._exhausted():
            self.programs += 1
            image = self.reach.probe(patterns[0])
            if image is None:
                patterns = patterns[~self.reach.cuts[-1].excludes(patterns)]
                continue
            if self.fooled(image):
                return image
            self.reason = "edge"
            patterns = patterns[1:]
        return None

    def _strain(self, patterns: Patterns) -> Array:
        """How far each pattern's currents lie from the middle of the box, summed over the neurons."""
        rows = np.arange(patterns.shape[1])
        lower, upper = (edge[rows, patterns] for edge in self.reach.edges)
        centre, spread = self.reach.centre, self.reach.spread
        away = np.maximum(lower - centre, centre - upper).clip(min=0) / np.where(spread > 0, spread, 1)
        return np.asarray(np.square(away).sum(1))

    def _exhausted(self) -> bool:
        limits = self.limits
        if self.nodes > limits.nodes:
            self.reason = "nodes"
        elif self.programs >= limits.programs:
            self.reason = "programs"
        elif self.deadline is not None and time.perf_counter() > self.deadline:
            self.reason = "seconds"
        else:
            return False
        return True
