"""Which setting a search tries next: optuna's tree-structured Parzen estimator, made repeatable."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.tuning.result import Past
from bench.tuning.space import Dimension, Space
from defenses.search import Choice
from models.random import derive_key

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SAMPLER_VERSION = 1
"""Raise it when the same past would be followed by other trials."""
STARTUP, BATCH = 8, 4
"""The first so many trials are the default and random ones; then so many at once are drawn from what is known. Both are
part of what decides the trials, so that they do not depend on how many workers there are."""


def batch_of(number: int) -> range:
    """The trials that are drawn together with trial `number`; each knows those before all of them."""
    if number < STARTUP:
        return range(STARTUP)
    first = STARTUP + (number - STARTUP) // BATCH * BATCH
    return range(first, first + BATCH)


def suggested(space: Space, key: str, number: int, past: Sequence[Past]) -> dict[str, str]:
    """The setting of one trial. The same arguments give the same one, whatever was drawn before.

    Source: Bergstra et al. 2011 (Algorithms for hyper-parameter optimization), as optuna's `TPESampler` does it.

    Args:
        space: what is searched.
        key: of the study.
        number: of the trial; 0 is the default.
        past: the trials before its batch, by number.

    Raises:
        BenchError: optuna is not installed.
    """
    if number == 0:
        return {}
    try:
        import optuna
    except ImportError as error:
        raise BenchError("bench tune needs optuna: pip install 'snn-bench[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=derive_key("tuning", key, number) % 2**32, n_startup_trials=STARTUP, multivariate=False
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {dimension.name: _distribution(dimension) for dimension in space.dimensions}
    for trial in past:
        params = _params(space, trial.values, distributions)
        if params is not None:
            value = -1.0 if trial.value is None else trial.value
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    drawn = study.ask(distributions).params
    return {dimension.name: dimension.written(drawn[dimension.name]) for dimension in space.dimensions}


def _distribution(dimension: Dimension) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found = dimension.range
    if isinstance(found, Choice):
        return CategoricalDistribution(found.values)
    if dimension.whole:
        return IntDistribution(round(found.low), round(found.high), log=found.log)
    return FloatDistribution(found.low, found.high, log=found.log)


def _params(
    space: Space, values: Mapping[str, str], distributions: "dict[str, BaseDistribution]"
) -> dict[str, Any] | None:
    """A trial's values as optuna has them; None of a default that is not in the space or that nobody can name."""
    params: dict[str, Any] = {}
    for dimension in space.dimensions:
        text = values.get(dimension.name, dimension.default)
        if text is None:
            return None
        if isinstance(dimension.range, Choice):
            params[dimension.name] = text
            continue
        value = float(text)
        if dimension.name in values:
            # What was rounded for the command line may lie a hair outside.
            value = min(max(value, dimension.range.low), dimension.range.high)
        elif not dimension.range.low <= value <= dimension.range.high:
            return None
        params[dimension.name] = round(value) if dimension.whole else value
    return params
