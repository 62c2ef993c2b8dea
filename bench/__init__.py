"""bench: how robust is a spiking neural network, really?"""

from bench.registry import register

__version__ = "0.1.0"
__all__ = ["__version__", "register"]
