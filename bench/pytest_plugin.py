"""For people who live in pytest: `assert_robustness`, and the fixture `robustness` that is the same function.

Loaded by pytest wherever `bench` is installed, so it imports nothing heavy until it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from bench.api import Evaluation


def assert_robustness(
    found: Evaluation | str | Path,
    baseline: str | Path | None = None,
    *,
    at_least: Mapping[str, float] | None = None,
    level: float = 0.01,
    min_effect: float = 0.01,
    iterate: str = "last",
    new_weights: bool = True,
    both_ways: bool = False,
) -> None:
    """Fail a test where robustness fell, or is not as high as it must be.

    Against a baseline this is `bench check`: exact paired tests on the same images, Holm over all of them, and a
    smallest loss that counts. Against floors, the lower end of the 95% Wilson interval must reach the floor: a rate
    that could as well lie below it is no assurance.

    Args:
        found: what `bench.evaluate` returned, or a results folder that `bench run` has filled.
        baseline: what `Evaluation.save` or `bench baseline save` wrote.
        at_least: attack -> smallest robust accuracy, a share; `clean` is the accuracy without attack.
        level, min_effect, iterate: see `bench.gate.check.run_check`.
        new_weights: compare although the network is another than the baseline's.
        both_ways: of fixed weights, so with `new_weights=False`: a rise is a failure, too.

    Raises:
        AssertionError: a regression, a floor that is not reached, or no verdict: what cannot be compared, or was not
            measured, is no pass.
        ValueError: neither a baseline nor floors.
    """
    if baseline is None and not at_least:
        raise ValueError("give a baseline, or at_least={'pgd40': 0.4}")
    __tracebackhide__ = True
    complaints = _below(found, at_least or {}, iterate)
    if baseline is not None:
        complaints += _fallen(found, Path(baseline), level, min_effect, iterate, new_weights, both_ways)
    if complaints:
        raise AssertionError("\n".join(complaints))


@pytest.fixture
def robustness() -> Callable[..., None]:
    """`assert_robustness` as a fixture, for tests that should not import it."""
    return assert_robustness


def _below(found: Evaluation | str | Path, floors: Mapping[str, float], iterate: str) -> list[str]:
    if not floors:
        return []
    from bench.api import Evaluation, load_results

    frame = found.frame() if isinstance(found, Evaluation) else load_results(found)
    rate = {"last": "robust", "any": "robust_any"}[iterate]
    complaints = []
    for attack, floor in floors.items():
        column = "clean" if attack == "clean" else rate
        rows = frame if attack == "clean" else frame[frame["attack"] == attack]
        if rows.empty:
            held = ", ".join(dict.fromkeys(frame["attack"]))
            complaints.append(f"{attack}: not measured; there are {held}")
        for row in rows.to_dict("records"):
            if row["verdict"] == "invalid":
                complaints.append(f"{attack}: the measurement of {row['defense']} is invalid")
            elif row[f"{column}_low"] < floor:
                complaints.append(
                    f"{row['defense']} under {attack}: {100 * row[column]:.1f}% [{100 * row[f'{column}_low']:.1f}, "
                    f"{100 * row[f'{column}_high']:.1f}] on {row['n']} images; at least {100 * floor:g}% is required, "
                    "with the lower end of the interval"
                )
    return list(dict.fromkeys(complaints))


def _fallen(
    found: Evaluation | str | Path,
    baseline: Path,
    level: float,
    min_effect: float,
    iterate: str,
    new_weights: bool,
    both_ways: bool,
) -> list[str]:
    import tempfile

    from bench.api import Evaluation
    from bench.errors import BenchError
    from bench.exchange.files import read_results
    from bench.exchange.merge import merge_bundle
    from bench.gate.check import OK, run_check
    from bench.gate.report import check_text
    from bench.store import Store

    wanted = read_results(baseline)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if isinstance(found, Evaluation):
            store = Store(Path(folder) / "bench.sqlite")
            merge_bundle(store, found.bundle, note={})
        else:
            path = Path(found) / "bench.sqlite"
            if not path.is_file():
                raise BenchError(f"there is no store '{path}'")
            store = Store(path, reading=True)
        check = run_check(
            store, wanted, level=level, min_effect=min_effect, iterate=iterate, new_weights=new_weights,
            both_ways=both_ways,
        )  # fmt: skip
        store.close()
    return [] if check.status == OK else [check_text(check)]
