"""Cheap guesses at misclassified images. They prove nothing until the model is run on them, and spare long searches."""

from collections.abc import Iterator

import numpy as np

from bench.truth.bounds import margin_bound, spike_ranges
from bench.truth.network import Array, Network

_SAMPLES, _STARTS, _ROUNDS = 256, 4, 8


def lowest_margins(network: Network, image: Array, label: int, low: Array, high: Array) -> Iterator[Array]:
    """Images of a box with small margins: random corners, the best of them improved pixel by pixel.

    Uses no gradient, so what it misses is not what gradient attacks miss.

    Args:
        network: the network.
        image: the clean image [P].
        label: its class.
        low, high: the box [P].

    Yields:
        images [P] whose margin is not positive, as far as these weights say.
    """
    everything = np.tile([0, len(network.trains.spikes) - 1], (network.neurons, 1))
    ranges = spike_ranges(network, everything)

    def margins(images: Array) -> Array:
        trains = network.trains.index(network.currents(images)).astype(np.int8)
        return margin_bound(network, trains, ranges, label)

    random = np.random.default_rng(0)
    points = np.where(random.random((_SAMPLES, len(image))) < 0.5, low, high)
    found = margins(points)
    for start in np.argsort(found, kind="stable")[:_STARTS]:
        point, margin = points[start], found[start]
        for _ in range(_ROUNDS):
            if margin <= 0:
                break
            moved = np.concatenate([np.where(np.eye(len(image), dtype=bool), end, point) for end in (low, high)])
            tried = margins(moved)
            best = int(tried.argmin())
            if not tried[best] < margin:
                break
            point, margin = moved[best], tried[best]
        if margin <= 0:
            yield point
