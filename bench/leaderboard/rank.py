"""From a store to leaderboards."""

import hashlib
import itertools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attacks.threat import format_eps
from bench.leaderboard.entry import DIVISIONS, Board, Entry, Seed
from bench.plan import without_eot
from bench.report.doubt import reasons
from bench.spec import canonical_json
from bench.statistics import Rate, SeedMean, compare_pairs, holm, over_seeds, welch, wilson
from bench.store import CellRow, Store
from bench.worst import passes_of

UNAUDITED = "unaudited"
"""Among the reasons of an entry with a network that `bench audit` has not looked at."""

_NOBODY = SeedMean(float("nan"), float("nan"), float("nan"), ())


def boards(store: Store, rows: Sequence[CellRow], required: Sequence[str] = ()) -> list[Board]:
    """Rank the networks behind some cells.

    A board holds what can be compared: one division, one test set, one number of images, one budget. An entry is one
    way to train one architecture, with all its training seeds. It is ranked by the worst case per image over every
    attack stored for it (any iterate), the mean over its seeds. So that nobody leads for having met fewer attacks, an
    entry is ranked only if it met all required ones; others are listed below.

    Args:
        store: where the outcomes are.
        rows: finished cells.
        required: attacks that every ranked entry must have met; if none are given, those that at least half of a
            board's entries met.

    Returns:
        boards, by division, data set and budget.
    """
    trained, origins = store.trained(), store.origins()
    groups: dict[tuple[str, ...], list[CellRow]] = {}
    for row in rows:
        if row.summary is None or row.spec["attack"]["family"] == "clean":
            continue
        comparable = (division_of(row), row.dataset, str(row.spec["test_hash"]), str(row.n), row.norm, row.eps)
        groups.setdefault(comparable, []).append(row)
    found = []
    for (division, dataset, test_hash, n, norm, eps), cells in groups.items():
        entries = _entries(store, cells, trained, origins, required)
        needed = tuple(map(without_eot, required)) or _usual(entries)
        # The same network stands on the boards of several budgets, with a page of its own for each.
        place = hashlib.sha256("|".join((division, dataset, test_hash, n, norm, eps)).encode()).hexdigest()[:4]
        entries = [replace(entry, slug=f"{entry.slug}-{place}") for entry in entries]
        ranked = _ranked([_judged(entry, needed) for entry in entries])
        found.append(Board(division, dataset, test_hash, int(n), norm, eps, needed, tuple(ranked)))
    return sorted(found, key=lambda b: (DIVISIONS.index(b.division), b.dataset, b.norm, -float(Fraction(b.eps)), -b.n))


def division_of(row: CellRow) -> str:
    """What a cell may be compared with: noisy networks are a division of their own, and so is event data."""
    if len(row.spec["model"]["in_shape"]) > 3:
        return "event"
    return "stochastic" if row.draws > 1 or row.spec["model"]["neuron"]["kind"] != "lif" else "deterministic"


def _entries(
    store: Store,
    cells: Iterable[CellRow],
    trained: Mapping[str, Mapping[str, Any]],
    origins: Mapping[str, Mapping[str, Any]],
    required: Sequence[str],
) -> list[Entry]:
    ways: dict[str, list[CellRow]] = {}
    for row in cells:
        ways.setdefault(_way(row, trained), []).append(row)
    entries = []
    for way, mine in ways.items():
        networks: dict[str, list[CellRow]] = {}
        for row in mine:
            networks.setdefault(row.weights_key, []).append(row)
        valid = {key: [row for row in group if row.verdict != "invalid"] for key, group in networks.items()}
        met = [{without_eot(row.attack) for row in group} for group in valid.values() if group]
        # A seed that met fewer attacks than another would be flattered.
        most = set.union(*met) if met else set()
        full = {k: g for k, g in valid.items() if g and {without_eot(row.attack) for row in g} >= most}
        chosen = full or {k: g for k, g in valid.items() if g}
        seeds = [_seed(store, group, trained, origins) for group in chosen.values()]
        entries.append(_entry(way, mine, sorted(seeds, key=lambda seed: seed.seed), trained, origins))
    return entries


def _way(row: CellRow, trained: Mapping[str, Mapping[str, Any]]) -> str:
    """Names a way of training: everything but the seed; given weights are a way of their own."""
    spec = dict(trained.get(row.weights_key, {}).get("spec") or {})
    spec.pop("seed", None)
    key = row.weights_key if row.weights_key.startswith("file:") else ""
    return hashlib.sha256(canonical_json([row.spec["model"], spec, key]).encode()).hexdigest()


def _seed(
    store: Store,
    cells: Sequence[CellRow],
    trained: Mapping[str, Mapping[str, Any]],
    origins: Mapping[str, Mapping[str, Any]],
) -> Seed:
    stands: NDArray[np.float64] | None = None
    for row in cells:
        outcome = store.outcome(row.key)
        assert outcome is not None
        stands = outcome.robust_any if stands is None else np.minimum(stands, outcome.robust_any)
    assert stands is not None
    newest = max(cells, key=lambda row: row.updated)
    assert newest.summary is not None
    weights = {"key": newest.weights_key, **trained.get(newest.weights_key, {})}
    return Seed(
        newest.seed, weights, tuple(cells), newest.summary.clean, wilson(float(stands.sum()), len(stands)), stands,
        min(cells, key=_left).attack, origins.get(newest.key, {}),
    )  # fmt: skip


def _left(row: CellRow) -> float:
    assert row.summary is not None
    return row.summary.robust_any.value


def _entry(
    way: str,
    cells: Sequence[CellRow],
    seeds: Sequence[Seed],
    trained: Mapping[str, Mapping[str, Any]],
    origins: Mapping[str, Mapping[str, Any]],
) -> Entry:
    newest = max(cells, key=lambda row: row.updated)
    shown = [row for seed in seeds for row in seed.cells] or list(cells)
    origin = origins.get(newest.key, {})
    recipe = dict((trained.get(newest.weights_key, {}).get("spec") or {}).get("recipe") or {})
    verdicts = {row.verdict for row in shown}
    verdict = "invalid" if not seeds else "suspect" if "suspect" in verdicts else "ok"
    why = sorted({reason for row in shown if row.verdict != "ok" for reason in reasons(row)})
    why += [UNAUDITED] if any(row.audit is None for row in shown) else []
    slug = re.sub(r"[^a-z0-9]+", "-", f"{newest.defense}-{newest.model}".lower()).strip("-")[:40] + f"-{way[:6]}"
    return Entry(
        rank=None, why="", slug=slug, defense=newest.defense, model=newest.model, T=int(newest.spec["model"]["T"]),
        recipe=recipe, seeds=tuple(seeds), clean=_over([seed.clean for seed in seeds]),
        worst=_over([seed.worst for seed in seeds]), verdict=verdict, reasons=tuple(why), missing=(), apart=None,
        passes=sum({without_eot(row.attack): passes_of(row) for row in shown}.values()),
        seconds=sum(row.seconds for row in shown), version=str(origin.get("version") or "?"),
        commit=origin.get("commit"), dirty=any(origins.get(row.key, {}).get("dirty") for row in shown),
        device=str(origin.get("device") or "?"), repeat=_command(cells, recipe), submitted=_submitted(origin),
    )  # fmt: skip


def _over(rates: Sequence[Rate]) -> SeedMean:
    if not rates:
        return _NOBODY
    mean = over_seeds([rate.value for rate in rates])
    return mean._replace(low=rates[0].low, high=rates[0].high) if len(rates) == 1 else mean


def _submitted(origin: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict((origin.get("imported") or {}).get("submission") or {})


def _usual(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Attacks that at least half of the entries met."""
    counts: dict[str, int] = {}
    for entry in entries:
        for name in met_by(entry):
            counts[name] = counts.get(name, 0) + 1
    valid = sum(bool(entry.seeds) for entry in entries)
    return tuple(name for name in counts if 2 * counts[name] >= valid)


def met_by(entry: Entry) -> tuple[str, ...]:
    """Attacks that every seed of an entry met, without their means over draws."""
    each = [dict.fromkeys(without_eot(row.attack) for row in seed.cells) for seed in entry.seeds]
    return tuple(name for name in (each[0] if each else ()) if all(name in names for names in each))


def _judged(entry: Entry, needed: Sequence[str]) -> Entry:
    if entry.verdict == "invalid":
        return replace(entry, why="all its cells are invalid: " + (", ".join(entry.reasons) or "see bench show"))
    missing = tuple(name for name in needed if name not in met_by(entry))
    return replace(entry, missing=missing, why=f"has not met {', '.join(missing)}" if missing else "")


def _ranked(entries: Sequence[Entry]) -> list[Entry]:
    able = sorted((e for e in entries if not e.why), key=lambda e: (-e.worst.value, -e.clean.value, e.slug))
    others = sorted((e for e in entries if e.why), key=lambda e: (e.verdict == "invalid", e.defense, e.slug))
    ranked: list[Entry] = []
    for place, entry in enumerate(able, 1):
        tied = ranked and entry.worst.value == ranked[-1].worst.value
        ranked.append(replace(entry, rank=ranked[-1].rank if tied else place))
    tests = [_above(one, two) for one, two in itertools.pairwise(ranked)]
    for place, p in enumerate(holm(tests)):
        ranked[place] = replace(ranked[place], apart=p)
    return [*ranked, *others]


def _above(one: Entry, two: Entry) -> float:
    """That the first only seems more robust than the second: over seeds where both have several, else over images."""
    if min(len(one.seeds), len(two.seeds)) > 1:
        a, b = ([seed.worst.value for seed in entry.seeds] for entry in (one, two))
        return welch(a, b).p_greater
    first, second = one.seeds[0], two.seeds[0]
    draws = (first.cells[0].draws, second.cells[0].draws)
    return compare_pairs(first.stands, second.stands, draws, "greater").p


def _command(cells: Sequence[CellRow], recipe: Mapping[str, Any]) -> str:
    """What measures an entry again."""
    first = cells[0]
    neuron = first.spec["model"]["neuron"]
    attacks = dict.fromkeys(row.attack for row in cells)
    parts = [
        "bench run", f"-d {shlex.quote(first.defense.partition(' (')[0])}", f"-a {shlex.quote(','.join(attacks))}",
        f"--dataset {shlex.quote(first.dataset)}", f"--model {shlex.quote(first.model)}",
        f"--eps {format_eps(Fraction(first.eps))}", f"-n {first.n}",
    ]  # fmt: skip
    options = (
        ("--norm", first.norm, "linf"), ("-T", first.spec["model"]["T"], 4), ("--decay", neuron["decay"], 0.5),
        ("--attack-seed", first.spec["attack_seed"], 0),
    )  # fmt: skip
    parts += [f"{name} {value}" for name, value, default in options if value != default]
    if first.weights_key.startswith("file:"):
        return " ".join([*parts, "--weights FILE"])
    for name in ("epochs", "batch_size", "lr", "train_size"):
        if recipe.get(name):
            parts.append(f"--{name.replace('_', '-')} {recipe[name]}")
    return " ".join([*parts, f"--seed {','.join(map(str, sorted({row.seed for row in cells})))}"])
