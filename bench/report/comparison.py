"""Comparisons and variance splits for people and for programs."""

from typing import Any

import pandas as pd

from bench.comparison import WORST, Comparison, Contrast, sentence
from bench.report.formats import write_sheet
from bench.report.sheet import MISSING, Piece, Sheet, rate_piece
from bench.statistics.variance import FACTORS, Split


def contrast_text(contrast: Contrast, form: str) -> str:
    """A sentence for each comparison, then all of them as a table."""
    said = [sentence(contrast, comparison) for comparison in contrast.comparisons]
    if form in ("csv", "json"):
        from bench.frames import written_frame

        return written_frame(pd.DataFrame([contrast_line(contrast, c) for c in contrast.comparisons]), form)
    table = write_sheet(contrast_sheet(contrast), form)
    if form in ("latex", "html"):
        return table
    # What a reader came for: the worst case of each budget; the attacks by themselves where there is none.
    worst = [text for text, c in zip(said, contrast.comparisons, strict=True) if c.attack.startswith(WORST)]
    return "\n".join([*(worst or said), "", table])


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
                    f"{100 * seeds.difference:+.1f}", f"[{100 * seeds.low:+.1f}, {100 * seeds.high:+.1f}]"
                ) if seeds else Piece(MISSING),
                Piece("; ".join(notes) or MISSING),
            )
        )  # fmt: skip
    iterate = "last iterate" if contrast.iterate == "last" else "any iterate"
    heads = ("attack", contrast.first, contrast.second, "difference", "p (Holm)", "over seeds", "notes")
    return Sheet(
        heads, tuple(rows), 1,
        caption=f"{contrast.first} against {contrast.second} on the same images; percent and points with 95% "
        f"intervals, {iterate}. p: exact paired test, two-sided. Over seeds: difference of means, Welch's t-interval.",
        notes=(f"Bold or starred differences: p below {contrast.level:g}.",), label="comparison",
    )  # fmt: skip


def contrast_line(contrast: Contrast, comparison: Comparison) -> dict[str, Any]:
    """A comparison for programs; rates are shares in [0, 1]."""
    paired, seeds = comparison.paired, comparison.seeds
    return {
        "first": contrast.first, "second": contrast.second, "attack": comparison.attack, "iterate": contrast.iterate,
        "n": paired.n, "first_rate": paired.first.value, "second_rate": paired.second.value,
        "difference": paired.difference, "low": paired.low, "high": paired.high,
        "only_first": paired.only_first, "only_second": paired.only_second, "p": paired.p, "p_holm": comparison.p,
        "real": comparison.p < contrast.level,
        "seeds_difference": seeds.difference if seeds else None, "seeds_low": seeds.low if seeds else None,
        "seeds_high": seeds.high if seeds else None, "seeds_p": seeds.p if seeds else None,
        "first_seeds": " ".join(f"{v:.6f}" for v in seeds.first) if seeds else None,
        "second_seeds": " ".join(f"{v:.6f}" for v in seeds.second) if seeds else None,
        "says": sentence(contrast, comparison), "notes": "; ".join(comparison.notes),
    }  # fmt: skip


def split_text(split: Split, title: str, advice: str, form: str) -> str:
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
    notes = [advice]
    unknown = [name for name in split.unknown if name in FACTORS]
    if any(part.negative for part in split.components):
        notes.append("† estimated below 0 and set to 0.")
    if unknown:
        notes.append(f"Unknown, since there is only one level: {', '.join(unknown)}. The total lacks their part.")
    sheet = Sheet(
        ("source", "levels", "variance", "standard error (points)", "share of the error"), tuple(rows), 1,
        caption=f"{title}: {100 * split.mean:.1f}% with a standard error of {100 * split.error:.2f} points in all.",
        notes=tuple(notes), label="variance",
    )  # fmt: skip
    return write_sheet(sheet, form)


def _known(value: float | None, form: str, scale: float, mark: str = "") -> Piece:
    return Piece("unknown") if value is None else Piece(form.format(scale * value), mark=mark)
