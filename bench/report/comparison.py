"""Comparisons and variance splits for people and for programs."""

from typing import Any

import pandas as pd

from bench.comparison import FAVOURS, WORST, Comparison, Contrast
from bench.repeats import Repeats
from bench.report.formats import write_sheet
from bench.report.sheet import MISSING, Piece, Sheet, rate_piece
from bench.statistics.variance import FACTORS, Split
from bench.tuning.notes import tuned_paragraph


def sentence(contrast: Contrast, comparison: Comparison) -> str:
    """In one sentence: which is more robust, by how much, and whether that is real."""
    paired = comparison.paired
    real = comparison.p < contrast.level
    swap = real and paired.difference < 0
    first, second = (contrast.second, contrast.first) if swap else (contrast.first, contrast.second)
    rates = (paired.second, paired.first) if swap else (paired.first, paired.second)
    ends = (-paired.high, -paired.low) if swap else (paired.low, paired.high)
    under = "without attack" if comparison.attack == "clean" else f"under {comparison.attack}"
    if comparison.attack.startswith(WORST):
        under = f"in the {WORST} over the attacks{comparison.attack.removeprefix(WORST)}"
    test = "exact McNemar" if "noise" not in comparison.notes else "exact sign-flip"
    if "noise" in comparison.notes and comparison.attack.startswith(WORST):
        # Which attack an image meets depends a little on the other images.
        test = "sign-flip"
    family = f", Holm over {len(contrast.comparisons)}" if len(contrast.comparisons) > 1 else ""
    figures = (
        f"{100 * rates[0].value:.1f} against {100 * rates[1].value:.1f} on the same {paired.n} images, 95% interval of "
        f"the difference {100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}; {test} p = {comparison.p:.2g}{family}"
    )
    if real:
        head = f"{first} is right on {100 * abs(paired.difference):.1f} points more images than {second} {under}"
    else:
        head = f"{first} and {second} cannot be told apart {under}"
    doubts = [note for note in comparison.notes if note.startswith("suspect") or note == FAVOURS]
    verdict = _verdict(contrast, comparison, real, swap)
    return f"{head} ({figures}): {verdict}." + "".join(f" Doubtful: {note}." for note in doubts)


def _verdict(contrast: Contrast, comparison: Comparison, real: bool, swap: bool) -> str:
    seeds = comparison.seeds
    if seeds is None:
        return (
            "real for these two trained networks; other training seeds may differ" if real else "not shown to be real"
        )
    counts = (len(seeds.second), len(seeds.first)) if swap else (len(seeds.first), len(seeds.second))
    low, high = (-seeds.high, -seeds.low) if swap else (seeds.low, seeds.high)
    over = (
        f"over {counts[0]} and {counts[1]} training seeds {100 * low:+.1f} to {100 * high:+.1f}, p = {seeds.p_holm:.2g}"
    )
    recipes = seeds.p_holm < contrast.level
    better = contrast.first if seeds.difference > 0 else contrast.second
    if real and recipes and seeds.difference * comparison.paired.difference > 0:
        return f"real, and of the recipes: {over}"
    if real and recipes:
        return f"real for the networks of one seed, but of the recipes {better} is the better one: {over}"
    if real:
        return f"real for the networks of one seed, not shown for the recipes: {over}"
    if recipes:
        return f"not shown for the networks of one seed, but of the recipes {better} is the better one: {over}"
    return f"not shown to be real; {over}"


def sentences(contrast: Contrast) -> list[str]:
    """What a reader came for: the worst case of each budget; the attacks by themselves where there is none."""
    worst = [comparison for comparison in contrast.comparisons if comparison.attack.startswith(WORST)]
    return [sentence(contrast, comparison) for comparison in worst or contrast.comparisons]


def contrast_text(contrast: Contrast, form: str) -> str:
    """A sentence for each comparison, then all of them as a table."""
    if form in ("csv", "json"):
        from bench.frames import written_frame

        return written_frame(pd.DataFrame([contrast_line(contrast, c) for c in contrast.comparisons]), form)
    table = write_sheet(contrast_sheet(contrast), form)
    if form in ("latex", "html"):
        return table
    return "\n".join([*sentences(contrast), "", table])


def contrast_sheet(contrast: Contrast) -> Sheet:
    """One row for each attack."""
    rows = []
    for comparison in contrast.comparisons:
        paired = comparison.paired
        notes = [note for note in comparison.notes if note != "noise"]
        seeds = comparison.seeds
        rows.append(
            (
                Piece(comparison.attack), rate_piece(paired.first), rate_piece(paired.second),
                Piece(
                    f"{100 * paired.difference:+.1f}", f"[{100 * paired.low:+.1f}, {100 * paired.high:+.1f}]",
                    bold=comparison.p < contrast.level,
                ),
                Piece(f"{comparison.p:.2g}"),
                Piece(
                    f"{100 * seeds.difference:+.1f}", f"[{100 * seeds.low:+.1f}, {100 * seeds.high:+.1f}]",
                    bold=seeds.p_holm < contrast.level,
                ) if seeds else Piece(MISSING),
                Piece("; ".join(notes) or MISSING),
            )
        )  # fmt: skip
    iterate = "last iterate" if contrast.iterate == "last" else "any iterate"
    heads = ("attack", contrast.first, contrast.second, "difference", "p (Holm)", "over seeds", "notes")
    return Sheet(
        heads, tuple(rows), 1,
        caption=f"{contrast.first} against {contrast.second} on the same images; percent and points with 95% "
        f"intervals, {iterate}. p: exact paired test, two-sided. Over seeds: difference of means, Welch's t-interval; "
        "bold by its own p.",
        notes=(
            f"Bold or starred differences: p below {contrast.level:g}.", *map(_as_note, contrast.notes),
            *filter(None, [tuned_paragraph(((), defense, "") for defense in contrast.defenses or ())]),
        ),
        label="comparison",
    )  # fmt: skip


def _as_note(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def contrast_line(contrast: Contrast, comparison: Comparison) -> dict[str, Any]:
    """A comparison for programs; rates are shares in [0, 1]."""
    paired, seeds = comparison.paired, comparison.seeds
    defenses = contrast.defenses or (contrast.first, contrast.second)
    return {
        "first": contrast.first, "second": contrast.second, "attack": comparison.attack, "iterate": contrast.iterate,
        "n": paired.n, "first_rate": paired.first.value, "second_rate": paired.second.value,
        "difference": paired.difference, "low": paired.low, "high": paired.high,
        "only_first": paired.only_first, "only_second": paired.only_second, "p": paired.p, "p_holm": comparison.p,
        "real": comparison.p < contrast.level,
        "seeds_difference": seeds.difference if seeds else None, "seeds_low": seeds.low if seeds else None,
        "seeds_high": seeds.high if seeds else None, "seeds_p": seeds.p if seeds else None,
        "seeds_p_holm": seeds.p_holm if seeds else None,
        "first_seeds": " ".join(f"{v:.6f}" for v in seeds.first) if seeds else None,
        "second_seeds": " ".join(f"{v:.6f}" for v in seeds.second) if seeds else None,
        "says": sentence(contrast, comparison), "notes": "; ".join((*comparison.notes, *contrast.notes)),
        "first_defense": defenses[0], "second_defense": defenses[1],
    }  # fmt: skip


def split_text(split: Split, found: Repeats, advice: str, form: str) -> str:
    """A variance split as a table."""
    total = split.error**2
    rows = [
        (
            Piece(part.source), Piece(f"{part.levels:,}"),
            _known(part.variance, "{:.5f}", 1.0, "†" if part.negative else ""),
            _known(part.error, "{:.2f}", 100.0),
            _known(None if part.error is None or not total else part.error**2 / total, "{:.0f}%", 100.0),
        )
        for part in split.components
    ]  # fmt: skip
    if form in ("csv", "json"):
        from bench.frames import written_frame

        lines = [vars(part) | {"mean": split.mean} for part in split.components]
        return written_frame(pd.DataFrame(lines), form)
    notes = [advice, *([f"Left out: {found.left_out}."] if found.left_out else [])]
    unknown = [name for name in split.unknown if name in FACTORS]
    if any(part.negative for part in split.components):
        notes.append("† estimated below 0 and set to 0.")
    if unknown:
        notes.append(f"Unknown, since there is only one level: {', '.join(unknown)}. The total lacks their part.")
    sheet = Sheet(
        ("source", "levels", "variance", "standard error (points)", "share of the error"), tuple(rows), 1,
        caption=f"{found.title}: {100 * split.mean:.1f}% with a standard error of {100 * split.error:.2f} points in "
        "all.",
        notes=tuple(notes), label="variance",
    )  # fmt: skip
    return write_sheet(sheet, form)


def _known(value: float | None, form: str, scale: float, mark: str = "") -> Piece:
    return Piece("unknown") if value is None else Piece(form.format(scale * value), mark=mark)
