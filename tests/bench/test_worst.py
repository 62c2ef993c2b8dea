"""The worst case over stored attacks."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import Run

from bench.outcome import Outcome
from bench.worst import Network, cheapest_order, steps


def network(standing: dict[str, list[int]], passes: dict[str, int] | None = None) -> Network:
    outcomes = {name: made(np.array(values, bool)[:, None]) for name, values in standing.items()}
    n = len(next(iter(standing.values())))
    passes = passes or dict.fromkeys(standing, 1)
    return Network("vanilla", "digits", "tiny", 0, "linf", "1/10", n, outcomes, passes, "any")


def made(stands: NDArray[np.bool_]) -> Outcome:
    """Images that are right without attack; `stands`: where they are so under it, [n, draws]."""
    zero = np.zeros(len(stands), np.float32)
    return Outcome(np.ones_like(stands), stands, stands, zero, zero, np.zeros(len(stands), np.uint8))


def test_an_image_counts_only_where_it_survives_every_attack() -> None:
    subject = network({"a": [1, 1, 0, 1], "b": [1, 0, 1, 1]})
    a, b = steps(subject, ["a", "b"])
    assert (a.alone.value, a.together.value) == (0.75, 0.75)
    assert (b.alone.value, b.together.value, b.passes) == (0.75, 0.5, 2)


def test_the_order_goes_by_images_broken_per_pass() -> None:
    standing = {"dear": [0, 0, 0, 1], "cheap": [0, 0, 1, 1], "useless": [1, 1, 1, 1]}
    assert cheapest_order([network(standing, {"dear": 100, "cheap": 10, "useless": 1})]) == ["cheap", "dear"]
    assert cheapest_order([network(standing, {"dear": 10, "cheap": 10, "useless": 1})]) == ["dear"]


def test_only_attacks_that_every_network_met_are_ordered() -> None:
    assert cheapest_order([network({"a": [0, 1], "b": [0, 0]}), network({"a": [0, 1], "c": [0, 0]})]) == ["a"]


@given(st.lists(st.lists(st.integers(0, 1), min_size=6, max_size=6), min_size=2, max_size=5))
def test_the_order_reaches_the_worst_case_over_all(rows: list[list[int]]) -> None:
    subject = network({str(i): row for i, row in enumerate(rows)})
    found = steps(subject, cheapest_order([subject]))
    worst = np.min(rows, axis=0).mean()
    assert (found[-1].together.value if found else 1.0) == pytest.approx(worst)
    values = [step.together.value for step in found]
    assert values == sorted(values, reverse=True)


def test_the_first_attack_alone_is_the_worst_case_so_far() -> None:
    """Each image falls in one of five draws only."""
    stands = np.ones((10, 5), bool)
    stands[np.arange(10), np.arange(10) % 5] = False
    subject = Network("nlif", "digits", "tiny", 0, "linf", "1/10", 10, {"a": made(stands)}, {"a": 1}, "any")
    assert cheapest_order([subject]) == ["a"]
    (only,) = steps(subject, ["a"])
    assert (only.alone.value, only.together.value) == (0.8, 0.8)


def test_the_command(bench: Run, tiny_run: list[str]) -> None:
    assert "no network was measured under two attacks" in bench("worst").stderr or "no store" in bench("worst").stderr
    assert bench(*tiny_run, "-a", "fgsm,pgd3,clean", "-n", "64").returncode == 0
    shown = bench("worst")
    assert shown.returncode == 0, shown.stderr
    assert "worst case so far" in shown.stdout
    (found,) = json.loads(bench("worst", "--json", "--each").stdout)
    cells = {cell["attack"]: cell for cell in json.loads(bench("ls", "runs", "--json").stdout)}
    lowest = min(cells[name]["robust_any"]["value"] for name in ("fgsm", "pgd3"))
    assert found["steps"][-1]["together"]["value"] <= lowest + 1e-9
