"""What a network's margin can be while the first layer's trains are known only in part.

A pattern is one number per first-layer neuron: the train it fires, or `OPEN`. Bounds are intervals
computed in float64; wherever a potential comes within `SLACK` of the threshold the neuron counts as
undecided, which covers the rounding of the few dozen additions behind it many times over.
"""

import numpy as np
from numpy.typing import NDArray

from bench.truth.network import Array, Network

SLACK = 1e-9
OPEN = -1

Patterns = NDArray[np.int8]


def spike_ranges(network: Network, reachable: NDArray[np.int64]) -> tuple[Array, Array]:
    """Least and largest spike of each neuron and train, [H1, K + 1, T] each; the last entry is for `OPEN`.

    Args:
        network: the network.
        reachable: first and last train that each neuron can fire, [H1, 2].
    """
    spikes = network.trains.spikes
    low = np.repeat(np.concatenate([spikes, spikes[:1]])[None], network.neurons, 0)
    high = low.copy()
    for neuron, (first, last) in enumerate(reachable):
        low[neuron, OPEN] = spikes[first : last + 1].min(0)
        high[neuron, OPEN] = spikes[first : last + 1].max(0)
    return low, high


def margin_bound(network: Network, patterns: Patterns, ranges: tuple[Array, Array], label: int) -> Array:
    """A lower bound of z_label - max_{k != label} z_k over everything that completes a pattern, [B].

    For a pattern without `OPEN` it is the margin itself, unless a potential lies within `SLACK` of the threshold.

    Args:
        network: the network.
        patterns: int8 [B, H1].
        ranges: from `spike_ranges`.
        label: the true class.
    """
    rows = np.arange(network.neurons)
    # As [T, B, H1].
    low, high = (np.moveaxis(table[rows, patterns], 2, 0) for table in ranges)
    counts = low.sum(0), high.sum(0)
    for weight, bias in network.hidden:
        low, high, *counts_of_layer = _layer(network, *_affine(weight, bias, low, high))
        counts = counts_of_layer[0], counts_of_layer[1]
    weight, bias = network.readout
    others = np.arange(len(bias)) != label
    difference, offset = weight[label] - weight[others], bias[label] - bias[others]
    least, _ = _affine(difference / network.T, offset, *counts)
    return np.asarray(least.min(1))


def _affine(weight: Array, bias: Array, low: Array, high: Array) -> tuple[Array, Array]:
    positive, negative = weight.clip(min=0).T, weight.clip(max=0).T
    return low @ positive + high @ negative + bias, high @ positive + low @ negative + bias


def _layer(network: Network, low: Array, high: Array) -> tuple[Array, Array, Array, Array]:
    """Spike ranges [T, B, H] and spike counts' ranges [B, H] of a LIF layer, from its currents' ranges [T, B, H].

    What a neuron does next depends only on when it fired last: there is one state for each such step
    (state 0: never), with the interval of its potential and of the spikes fired until then.
    """
    T, leak, threshold = network.T, network.decay, network.v_threshold
    shape = low.shape[1:]
    potentials = [(np.zeros(shape), np.zeros(shape))]
    alive = [np.ones(shape, dtype=bool)]
    fired = [(np.zeros(shape), np.zeros(shape))]
    spikes_low, spikes_high = np.empty_like(low), np.empty_like(high)
    for t in range(T):
        surely, maybe = np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool)
        least, most = np.full(shape, np.inf), np.full(shape, -np.inf)
        for s, (u_low, u_high) in enumerate(potentials):
            v_low, v_high = leak * u_low + low[t], leak * u_high + high[t]
            fires = alive[s] & (v_high >= threshold - SLACK)
            rests = alive[s] & (v_low < threshold + SLACK)
            surely &= ~rests
            maybe |= fires
            least = np.where(fires, np.minimum(least, fired[s][0]), least)
            most = np.where(fires, np.maximum(most, fired[s][1]), most)
            potentials[s] = v_low, np.minimum(v_high, threshold + SLACK)
            alive[s] = rests
        reset = np.full(shape, network.v_reset)
        potentials.append((reset, reset))
        alive.append(maybe)
        fired.append((least + 1, most + 1))
        spikes_low[t], spikes_high[t] = surely, maybe
    count_low = np.min([np.where(a, f[0], np.inf) for a, f in zip(alive, fired, strict=True)], axis=0)
    count_high = np.max([np.where(a, f[1], -np.inf) for a, f in zip(alive, fired, strict=True)], axis=0)
    return spikes_low, spikes_high, count_low, count_high
