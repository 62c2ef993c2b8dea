"""Spiking networks: neurons, surrogates, counter-based noise and the architectures built from them."""

from models.net import SpikingNet
from models.neurons import LIF, NeuronSpec, NoisyLIF, record_membrane, using_surrogate
from models.random import CounterRNG, derive_key, noise_stream
from models.surrogates import ArcTan, Gaussian, Rectangular, Sigmoid, Surrogate, Triangular, parse_surrogate

__all__ = [
    "LIF",
    "ArcTan",
    "CounterRNG",
    "Gaussian",
    "NeuronSpec",
    "NoisyLIF",
    "Rectangular",
    "Sigmoid",
    "SpikingNet",
    "Surrogate",
    "Triangular",
    "derive_key",
    "noise_stream",
    "parse_surrogate",
    "record_membrane",
    "using_surrogate",
]
