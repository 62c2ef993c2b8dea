"""The gradient is the attacker's choice: how spikes are differentiated, and over how many draws it is averaged."""

from attacks.gradients.base import SpikeGradient
from attacks.gradients.estimation import estimating
from attacks.gradients.input import InputGradient, frozen, input_gradient
from attacks.gradients.names import GRADIENTS, format_gradient, parse_gradient, read_gradient

__all__ = [
    "GRADIENTS",
    "InputGradient",
    "SpikeGradient",
    "estimating",
    "format_gradient",
    "frozen",
    "input_gradient",
    "parse_gradient",
    "read_gradient",
]
