"""bench: how robust is a spiking neural network, really?"""

from typing import TYPE_CHECKING, Any

from bench.registry import register

if TYPE_CHECKING:
    from bench.api import Evaluation, evaluate, load_results

__version__ = "0.1.0"
__all__ = ["Evaluation", "__version__", "evaluate", "load_results", "register"]


def __getattr__(name: str) -> Any:
    # torch and pandas take seconds to load, which `bench --help` should not.
    if name in ("Evaluation", "evaluate", "load_results"):
        import bench.api

        return getattr(bench.api, name)
    raise AttributeError(f"module 'bench' has no attribute '{name}'")
