"""Do the intervals and tests keep what they promise? Simulated: `python -m bench.statistics.simulate`."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bench.statistics.paired import Paired, compare_pairs, holm
from bench.statistics.rates import wilson
from bench.statistics.seeds import over_seeds

LEVEL = 0.05


class Promise(NamedTuple):
    """One simulated figure.

    Attributes:
        what: is measured, and in which situation.
        share: found, in [0, 1].
        nominal: what it should be: at least that for a coverage, at most that for an error.
        repeats: simulated experiments.
    """

    what: str
    share: float
    nominal: float
    repeats: int


def promises(repeats: int = 2000, seed: int = 0) -> Iterator[Promise]:
    """Coverage of every interval and false-positive rate of every test, in situations that occur."""
    random = np.random.default_rng(seed)
    for n, p in ((100, 0.02), (500, 0.4), (1000, 0.9)):
        rates = [wilson(float(hits), n) for hits in random.binomial(n, p, repeats)]
        covered = float(np.mean([rate.low <= p <= rate.high for rate in rates]))
        yield Promise(f"Wilson interval covers, n {n}, rate {p:g}", covered, 1 - LEVEL, repeats)
    chances = random.beta(0.3, 0.3, (repeats, 300))
    hits = (random.binomial(5, chances) / 5).sum(1)
    covered = float(np.mean([(r := wilson(float(h), 300)).low <= 0.5 <= r.high for h in hits]))
    yield Promise("Wilson interval covers, shares of 5 draws, n 300", covered, 1 - LEVEL, repeats)
    for seeds in (3, 5, 10):
        values = random.normal(0.4, 0.03, (repeats, seeds))
        means = [over_seeds(list(row)) for row in values]
        covered = float(np.mean([mean.low <= 0.4 <= mean.high for mean in means]))
        yield Promise(f"t-interval over {seeds} seeds covers", covered, 1 - LEVEL, repeats)
    for n, gain, loss in ((200, 0.02, 0.02), (500, 0.10, 0.05), (1000, 0.01, 0.04)):
        found = [_paired(random, n, gain, loss, 1) for _ in range(repeats)]
        covered = float(np.mean([paired.low <= gain - loss <= paired.high for paired in found]))
        yield Promise(f"paired interval covers, n {n}, gain {gain:g}, loss {loss:g}", covered, 1 - LEVEL, repeats)
    for n, share, draws in ((100, 0.05, 1), (500, 0.05, 1), (500, 0.2, 1), (500, 0.3, 5)):
        found = [_paired(random, n, share / 2, share / 2, draws) for _ in range(repeats)]
        alarms = float(np.mean([paired.p < LEVEL for paired in found]))
        named = "McNemar" if draws == 1 else "sign-flip test (5 draws)"
        yield Promise(f"{named} calls chance real, n {n}, {share:.0%} discordant", alarms, LEVEL, repeats)
    for attacks in (6, 20):
        wrong = [min(holm(_nested(random, 500, attacks))) < LEVEL for _ in range(repeats // 4)]
        what = f"Holm calls any of {attacks} attacks on the same images real by chance"
        yield Promise(what, float(np.mean(wrong)), LEVEL, repeats // 4)


def _paired(random: np.random.Generator, n: int, gain: float, loss: float, draws: int) -> Paired:
    """Two networks of which the first alone is right with chance `gain` and the second alone with chance `loss`."""
    kind = random.choice(4, n, p=[gain, loss, 0.6 * (1 - gain - loss), 0.4 * (1 - gain - loss)])
    first, second = np.isin(kind, (0, 2)).astype(float), np.isin(kind, (1, 2)).astype(float)
    if draws > 1:
        # An image that is right with a share of the draws; exchangeable between the two networks.
        share = random.beta(0.5, 0.5, n)
        first, second = (random.binomial(draws, share) / draws for _ in range(2))
    return compare_pairs(first, second, (draws, draws))


def _nested(random: np.random.Generator, n: int, attacks: int) -> list[float]:
    """p-values of two equal networks under attacks of growing strength: what one breaks the next breaks as well."""
    stands = random.uniform(0, 1, (2, n))
    hardness = random.uniform(0, 1, n)
    ps = []
    for strength in np.linspace(0.2, 0.8, attacks):
        first, second = ((0.9 * hardness + 0.1 * one > strength).astype(float) for one in stands)
        ps.append(compare_pairs(first, second).p)
    return ps


if __name__ == "__main__":
    print("| what | simulated | nominal | repeats |\n| --- | --- | --- | --- |")
    for promise in promises():
        sign = "at least" if promise.nominal > 0.5 else "at most"
        print(f"| {promise.what} | {promise.share:.1%} | {sign} {promise.nominal:.0%} | {promise.repeats} |")
