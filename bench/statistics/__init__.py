"""Statistics of outcomes: rates with intervals, means over seeds, paired comparisons, families of tests."""

from bench.statistics.paired import Alternative, Paired, compare_pairs, holm, mcnemar, sign_flip
from bench.statistics.rates import Rate, success_rate, wilson
from bench.statistics.seeds import SeedMean, Welch, over_seeds, welch
from bench.statistics.worst import better_of, worst_case

__all__ = [
    "Alternative",
    "Paired",
    "Rate",
    "SeedMean",
    "Welch",
    "better_of",
    "compare_pairs",
    "holm",
    "mcnemar",
    "over_seeds",
    "sign_flip",
    "success_rate",
    "welch",
    "wilson",
    "worst_case",
]
