"""How long things take on this machine, judged by what the store says they took."""

from bench.costs.makespan import Load, makespan
from bench.costs.predict import Costs

__all__ = ["Costs", "Load", "makespan"]
