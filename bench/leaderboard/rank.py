"""From a store to leaderboards."""

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from bench.again import commands
from bench.errors import BenchError
from bench.leaderboard.entry import DIVISIONS, Board, Entry, Seed
from bench.leaderboard.met import Networks, meets, met, usual
from bench.names import HELD_OUT, without_eot
from bench.report.doubt import reasons
from bench.statistics import Rate, SeedMean, compare_pairs, holm, over_seeds, welch, wilson
from bench.store import CellRow, Store
from bench.tuning.notes import tuned_words, winners
from bench.tuning.result import Found
from bench.ways import is_noisy, way_of
from bench.worst import passes_of, worst_of

UNAUDITED = "unaudited"
"""Among the reasons of an entry with a network that `bench audit` has not looked at."""

_NOBODY = SeedMean(float("nan"), float("nan"), float("nan"), ())


def boards(store: Store, rows: Sequence[CellRow], required: Sequence[str] = ()) -> list[Board]:
    """Rank the networks behind some cells.

    A board holds what can be compared: one division, one test set, one number of images and of scoring draws, one
    budget. An entry is one
    way to train one architecture, with all its training seeds. It is ranked by the worst case per image over every
    attack stored for it (any iterate), the mean over its seeds. So that nobody leads for having met fewer attacks, an
    entry is ranked only if it met all required ones; others are listed below. A noisy network that met an attack with a
    mean over more draws met it with fewer, too, and not the other way round.

    Args:
        store: where the outcomes are.
        rows: finished cells.
        required: attacks that every ranked entry must have met; if none are given, those that at least half of a
            board's entries met.

    Returns:
        boards, by division, data set and budget.
    """
    trained, origins, of = store.trained(), store.origins(), winners(store, rows)
    groups: dict[tuple[str, ...], list[CellRow]] = {}
    for row in rows:
        # One draw of a noisy network is luck, and no expectation.
        lucky = is_noisy(row) and row.draws < 2
        # Rounding to bfloat16 moves what an attack finds; the reference is there to be compared with, not to rank.
        rounded = row.spec["attack"].get("arithmetic", "fast") != "fast"
        # What settings were chosen on is no result.
        chosen_on = row.dataset.startswith(HELD_OUT)
        if row.summary is None or row.spec["attack"]["family"] == "clean" or lucky or rounded or chosen_on:
            continue
        measured = (row.dataset, str(row.spec["test_hash"]), str(row.n), str(row.draws), row.norm, row.eps)
        groups.setdefault((division_of(row), *measured), []).append(row)
    found = []
    for (division, dataset, test_hash, n, draws, norm, eps), cells in groups.items():
        ways = _ways(cells, trained, origins)
        asked = map(without_eot, required) if division == "deterministic" else required
        needed = tuple(dict.fromkeys(asked)) or usual(ways.values())
        entries = [
            replace(_entry(store, way, networks, needed, trained, origins), tuned=_tuned(networks, of))
            for way, networks in ways.items()
        ]
        # The same network stands on the boards of several budgets, with a page of its own for each.
        place = hashlib.sha256("|".join((division, dataset, test_hash, n, draws, norm, eps)).encode()).hexdigest()[:4]
        entries = [replace(entry, slug=f"{entry.slug}-{place}") for entry in entries]
        ranked = _ranked([_judged(entry, needed) for entry in entries])
        found.append(Board(division, dataset, test_hash, int(n), int(draws), norm, eps, needed, tuple(ranked)))
    return sorted(
        found,
        key=lambda b: (DIVISIONS.index(b.division), b.dataset, b.norm, -float(Fraction(b.eps)), -b.n, -b.draws),
    )


def division_of(row: CellRow) -> str:
    """What a cell may be compared with: noisy networks are a division of their own, and so is event data."""
    if row.spec["model"].get("frames"):
        return "event"
    return "stochastic" if row.draws > 1 or is_noisy(row) else "deterministic"


def _ways(
    cells: Iterable[CellRow], trained: Mapping[str, Mapping[str, Any]], origins: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, list[CellRow]]]:
    """Networks by the way they were trained.

    A submission is a way of its own, since how its weights were trained is the submitter's word: they must not move
    the mean of anybody else's seeds. Whoever measured a network first has brought it, whoever attacks it further.
    """
    brought: dict[str, tuple[str, str]] = {}
    for row in cells:
        imported = origins.get(row.key, {}).get("imported") or {}
        by = (str(imported.get("when")), str(imported.get("sha256"))) if imported.get("submission") else ("", "")
        brought[row.weights_key] = min(brought.get(row.weights_key, by), by)
    ways: dict[str, dict[str, list[CellRow]]] = {}
    for row in cells:
        way = hashlib.sha256((way_of(row, trained) + brought[row.weights_key][1]).encode()).hexdigest()
        ways.setdefault(way, {}).setdefault(row.weights_key, []).append(row)
    return ways


def _seed(
    store: Store,
    cells: Sequence[CellRow],
    trained: Mapping[str, Mapping[str, Any]],
    origins: Mapping[str, Mapping[str, Any]],
) -> Seed:
    outcomes = [store.outcome(row.key) for row in cells]
    stands = worst_of([outcome for outcome in outcomes if outcome is not None], "any")
    newest = max(cells, key=lambda row: row.updated)
    assert newest.summary is not None
    weights = {"key": newest.weights_key, **trained.get(newest.weights_key, {})}
    return Seed(
        newest.seed, weights, tuple(cells), newest.summary.clean, wilson(float(stands.mean(1).sum()), len(stands)),
        stands, min(cells, key=_left).attack, origins.get(newest.key, {}),
    )  # fmt: skip


def _left(row: CellRow) -> float:
    assert row.summary is not None
    return row.summary.robust_any.value


def _entry(
    store: Store,
    way: str,
    networks: Networks,
    needed: Sequence[str],
    trained: Mapping[str, Mapping[str, Any]],
    origins: Mapping[str, Mapping[str, Any]],
) -> Entry:
    cells = [row for group in networks.values() for row in group]
    valid = {key: [row for row in group if row.verdict != "invalid"] for key, group in networks.items()}
    # A seed that met fewer attacks would be flattered. One that met more is not asked for: else whoever attacks
    # only the luckiest seed once more would be left with that one.
    full = [group for group in valid.values() if group and not _lacking(group, needed)]
    chosen = full or [group for group in valid.values() if group]
    seeds = sorted((_seed(store, group, trained, origins) for group in chosen), key=lambda seed: seed.seed)
    newest = max(cells, key=lambda row: row.updated)
    shown = [row for seed in seeds for row in seed.cells] or cells
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
        worst=_over([seed.worst for seed in seeds]), verdict=verdict, reasons=tuple(why), missing=(),
        left_out=tuple(_left_out(networks, needed, shown)), apart=None,
        passes=sum({row.attack: passes_of(row) for row in shown}.values()),
        seconds=sum(row.seconds for row in shown), version=str(origin.get("version") or "?"),
        commit=origin.get("commit"), dirty=any(origins.get(row.key, {}).get("dirty") for row in shown),
        device=str(origin.get("device") or "?"), repeat=commands(cells, recipe, origins),
        submitted=_submitted(cells, origins),
    )  # fmt: skip


def _tuned(networks: Networks, of: Mapping[str, Found]) -> str:
    return next((tuned_words(of[key]) for key in networks if key in of), "")


def _left_out(networks: Networks, needed: Sequence[str], shown: Sequence[CellRow]) -> list[str]:
    """What was measured of an entry and is not among its numbers, and why."""
    counted, lines = {row.weights_key for row in shown if row.verdict != "invalid"}, []
    for key, cells in networks.items():
        for row in cells:
            if row.verdict == "invalid":
                why = ", ".join(reasons(row)) or "see bench show"
                lines.append(f"{row.attack} on seed {row.seed} is invalid: {why}")
        lacking = _lacking(cells, needed)
        if counted and key not in counted:
            lines.append(f"seed {cells[0].seed} has not met {', '.join(lacking)}")
    return lines


def _lacking(cells: Sequence[CellRow], needed: Sequence[str]) -> list[str]:
    found = met(cells)
    return [name for name in needed if not meets(found, name)]


def _over(rates: Sequence[Rate]) -> SeedMean:
    if not rates:
        return _NOBODY
    mean = over_seeds([rate.value for rate in rates])
    if len(rates) == 1:
        return mean._replace(low=rates[0].low, high=rates[0].high)
    # Student's interval knows nothing of rates. What it leaves of [0, 1] covers as often.
    return mean._replace(low=max(0.0, mean.low), high=min(1.0, mean.high))


def _submitted(cells: Sequence[CellRow], origins: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """What the submission says that brought these networks; nothing if any cell was measured here."""
    each = [dict((origins.get(row.key, {}).get("imported") or {}).get("submission") or {}) for row in cells]
    return each[0] if all(each) else {}


def _judged(entry: Entry, needed: Sequence[str]) -> Entry:
    if entry.verdict == "invalid":
        return replace(entry, why="all its cells are invalid: " + (", ".join(entry.reasons) or "see bench show"))
    each = [_lacking(seed.cells, needed) for seed in entry.seeds]
    missing = tuple(name for name in needed if any(name in lacking for lacking in each))
    nowhere = [name for name in missing if all(name in lacking for lacking in each)]
    why = f"has not met {', '.join(nowhere)}" if nowhere else "has no seed that met all required attacks"
    return replace(entry, missing=missing, why=why if missing else "")


def _ranked(entries: Sequence[Entry]) -> list[Entry]:
    able = sorted((e for e in entries if not e.why), key=lambda e: (-e.worst.value, -e.clean.value, e.slug))
    others = sorted((e for e in entries if e.why), key=lambda e: (e.verdict == "invalid", e.defense, e.slug))
    ranked: list[Entry] = []
    for place, entry in enumerate(able, 1):
        # Means of the same numbers in another order differ in their last bits.
        tied = ranked and math.isclose(entry.worst.value, ranked[-1].worst.value, abs_tol=1e-12)
        ranked.append(replace(entry, rank=ranked[-1].rank if tied else place))
    tests = [_above(one, two) for one, two in itertools.pairwise(ranked)]
    for place, p in enumerate(holm(tests)):
        ranked[place] = replace(ranked[place], apart=p)
    return [*ranked, *others]


def _above(one: Entry, two: Entry) -> float:
    """That the two differ by chance: over seeds where both have several, else over images. Two-sided, since which of
    them is the first was chosen by what was measured."""
    if min(len(one.seeds), len(two.seeds)) > 1:
        a, b = ([seed.worst.value for seed in entry.seeds] for entry in (one, two))
        return welch(a, b).p
    first, second = one.seeds[0], two.seeds[0]
    draws = (first.stands.shape[1], second.stands.shape[1])
    try:
        return compare_pairs(first.stands.mean(1), second.stands.mean(1), draws).p
    except BenchError:
        # Too many draws for an exact test: nothing is shown.
        return 1.0
