"""Breakpoints of a neuron's spike train, against the neuron itself."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.truth.trains import trains
from models.lif import LIFParams, lif
from models.surrogates import Triangular


def simulated(current: np.ndarray, T: int, decay: float, threshold: float, reset: float) -> np.ndarray:
    params = LIFParams(decay, threshold, reset, False, Triangular())
    spikes, _ = lif(torch.from_numpy(current).expand(T, -1), params)
    return spikes.T.numpy()


def test_the_common_neuron_by_hand() -> None:
    found = trains(4, 0.5, 1.0, 0.0)
    assert found.exact == (Fraction(8, 15), Fraction(4, 7), Fraction(2, 3), Fraction(1))
    assert found.spikes.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1]]


def test_a_neuron_that_reaches_the_threshold_exactly_fires() -> None:
    found = trains(4, 0.5, 1.0, 0.0)
    assert found.index(np.array([1.0, np.nextafter(1.0, 0)])).tolist() == [4, 3]


@settings(max_examples=60, deadline=None)
@given(
    T=st.integers(1, 7),
    decay=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]),
    threshold=st.sampled_from([0.5, 1.0, 1.3]),
    reset=st.sampled_from([0.0, -0.5, 0.25]),
    currents=st.lists(st.floats(-3, 3), min_size=1, max_size=40),
)
def test_every_current_fires_the_train_it_is_said_to(
    T: int, decay: float, threshold: float, reset: float, currents: list[float]
) -> None:
    found = trains(T, decay, threshold, reset)
    ends = [float(edge) + off for edge in found.exact for off in (-1e-9, 1e-9)]
    current = np.array([*currents, *ends])
    current = current[np.abs(current[:, None] - found.edges[None, 1:-1]).min(1) > 1e-12]
    assert np.array_equal(found.spikes[found.index(current)], simulated(current, T, decay, threshold, reset))


@pytest.mark.parametrize("T", [1, 4, 8])
def test_neighbouring_trains_differ_and_edges_rise(T: int) -> None:
    found = trains(T, 0.5, 1.0, 0.0)
    assert (np.diff(found.edges) > 0).all()
    assert (found.spikes[1:] != found.spikes[:-1]).any(1).all()
