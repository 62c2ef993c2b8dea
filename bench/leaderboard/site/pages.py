"""What stands on the pages."""

import json
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from html import escape
from typing import Any

from attacks.threat import format_eps
from bench.leaderboard.entry import Board, Entry
from bench.leaderboard.sheet import LEVEL, board_title, by_short_names, tuned_rows
from bench.leaderboard.site.plot import eps_plot, meter
from bench.report.doubt import audit_line, doubts
from bench.report.sheet import rate_piece
from bench.statistics import SeedMean
from bench.store import CellRow

Curve = tuple[str, list[tuple[float, str, float, float, float]]]
"""An attack, and its points as `eps_plot` takes them."""

_POLICY = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; base-uri 'none'"


def page(title: str, body: str, depth: int = 0) -> str:
    """A whole document."""
    up = "../" * depth
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{up}style.css">
<script src="{up}script.js"></script>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header><h1>{escape(title)}</h1><button class="theme" data-needs-script hidden>Light or dark</button></header>
<main id="main">
{body}
</main>
</body>
</html>
"""


def index(boards: Sequence[Board], curves: Mapping[str, Curve | None]) -> str:
    """The first page: every board."""
    tuned = tuned_rows(boards)
    boards = by_short_names(boards)
    divisions = dict.fromkeys(board.division for board in boards)
    options = "".join(f'<option value="{escape(d)}">{escape(d)}</option>' for d in divisions)
    sorts = "".join(f"<option>{escape(name)}</option>" for name, _ in _HEADS)
    # The board that most networks stand on is what a reader came for.
    ordered = sorted(boards, key=lambda board: (list(divisions).index(board.division), -len(board.entries)))
    body = f"""<p class="lead">The share of test images that a network gets right without attack and under every attack that was
tried, per image the worst case. An upper bound: another attack may find more.</p>
<div class="controls" data-needs-script hidden>
<label>Find <input id="filter" type="search" autocomplete="off"></label>
<label>Division <select id="division"><option value="">all</option>{options}</select></label>
<label class="narrow">Sort by <select id="sort">{sorts}</select></label>
<label><input id="sound" type="checkbox"> hide suspect and invalid</label>
<span id="count" role="status"></span>
</div>
<p id="nothing" class="none" hidden>No entry fits.</p>
{"".join(_board(board, number, curves) for number, board in enumerate(ordered))}
{f'<p class="note">{escape(tuned)}</p>' if tuned else ""}<h2>How to read this</h2>
<p class="about">Networks are compared only within a board: the same images, the same budget, the same division. Intervals are
95%: Wilson's for one training seed, Student's over several. Above next: whether an entry is really more robust than the one
below it, by an exact test on the same images or over training seeds (Holm, level {LEVEL:g}); a rank alone says less. Passes:
forward and backward passes per image of all attacks. Code: the commit that measured it, + with changes that were not committed.
Suspect: perhaps too high. Unaudited: nobody looked for masked gradients yet.</p>
<p class="about"><a href="data.csv">data.csv</a> and <a href="data.json">data.json</a> hold every number.</p>"""
    return page("Robustness of spiking neural networks", body)


_HEADS = (
    ("rank", True), ("defense", False), ("model", False), ("worst case", True), ("clean", True), ("strongest attack", False),
    ("above next", False), ("seeds", True), ("passes", True), ("verdict", False), ("code", False),
)  # fmt: skip


def _board(board: Board, number: int, curves: Mapping[str, Curve | None]) -> str:
    heads = "".join(
        f'<th scope="col"{" class=number" if numeric else ""}{" aria-sort=ascending" if name == "rank" else ""}>'
        f"<button type=button>{escape(name)}</button></th>"
        for name, numeric in _HEADS
    )
    cells = [_cells(entry) for entry in board.entries]
    # Where all was measured at one budget, a column of curves would say so in every row.
    if any(curves.get(entry.slug) for entry in board.entries):
        heads += '<th scope="col" class="drawn">curve</th>'
        popups = [_popup(e, f"b{number}-{i}", curves.get(e.slug)) for i, e in enumerate(board.entries)]
        cells = [f'{row}<td class="wide drawn">{popup}</td>' for row, popup in zip(cells, popups, strict=True)]
    rows = "\n".join(f"{_row_of(e)}{row}</tr>" for e, row in zip(board.entries, cells, strict=True))
    required = ", ".join(board.required) or "any attack"
    return f"""<section class="board-section" data-division="{escape(board.division)}">
<h2 id="h{number}">{escape(board_title(board))}</h2>
<p class="finding">{_finding(board)}</p>
<div class="scroll" tabindex="0" role="region" aria-labelledby="h{number}"><table class="board">
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody></table></div>
<p class="note">Ranked are networks that met {escape(required)}.</p>
{_left_out(board.entries)}</section>
"""


def _finding(board: Board) -> str:
    """What a board says, in a sentence."""
    ranked = [entry for entry in board.entries if entry.rank]
    if not ranked:
        return "Nobody is ranked yet."
    first = [entry for entry in ranked if entry.rank == 1]
    names = " and ".join(f"<b>{_short(entry)}</b>" for entry in first[:3]) + (" and more" if first[3:] else "")
    share = f"{100 * first[0].worst.value:.1f}% of the images"
    if len(first) > 1:
        text = f"{names} share the first place with {share}."
    elif len(ranked) == 1:
        text = f"{names} keeps {share}; nobody else is ranked here yet."
    elif first[0].apart is not None and first[0].apart < LEVEL:
        text = f"{names} leads with {share}, really more than {_short(ranked[1])} behind it."
    else:
        text = f"{names} leads with {share}, but {_short(ranked[1])} behind it may be as robust."
    return text + (" It is suspect, perhaps too high." if any(e.verdict == "suspect" for e in first) else "")


def _short(entry: Entry) -> str:
    name = entry.defense
    return escape(name if len(name) <= 60 else f"{name[:59]}\u2026")


def _left_out(entries: Sequence[Entry]) -> str:
    """What was measured and is not among the numbers, as a list; nothing where all is."""
    lines = [f"{entry.defense}: {line}" for entry in entries for line in entry.left_out if entry.rank]
    lines += [f"{entry.defense} is not ranked: {entry.why}" for entry in entries if not entry.rank]
    if not lines:
        return ""
    return f'<ul class="note">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>\n'


def _row_of(entry: Entry) -> str:
    return f'<tr data-verdict="{escape(entry.verdict)}"{"" if entry.rank else " class=unranked"}>'


def _cells(entry: Entry) -> str:
    strongest = ", ".join(dict.fromkeys(seed.strongest for seed in entry.seeds)) or "-"
    apart = "-" if entry.apart is None else "yes" if entry.apart < LEVEL else "no"
    by = f'<span class="why">by {escape(str(entry.submitted["by"]))}</span>' if entry.submitted.get("by") else ""
    worst = _percent(entry.worst) + (_meter(entry.worst) if entry.worst.values else "")
    return (
        f'<td class="number" data-label="rank" data-value="{entry.rank or ""}">{entry.rank or "-"}</td>'
        f'<th scope="row" class="name" data-rank="{entry.rank or "-"}"><a href="entries/{entry.slug}.html">{_breakable(entry.defense)}</a>{by}</th>'
        f'<td class="model" data-label="model">{escape(entry.model)}, T {entry.T}</td>'
        f'<td class="number wide" data-label="worst case" data-value="{_value(entry.worst)}">{worst}</td>'
        f'<td class="number" data-label="clean" data-value="{_value(entry.clean)}">{_percent(entry.clean)}</td>'
        f'<td data-label="strongest attack">{escape(strongest)}</td>'
        f'<td data-label="above next">{apart}</td>'
        f'<td class="number" data-label="seeds">{len(entry.seeds)}</td>'
        f'<td class="number" data-label="passes" data-value="{entry.passes}">{entry.passes:,}</td>'
        f'<td data-label="verdict">{_verdict(entry)}</td>'
        f'<td data-label="code">{escape(_code(entry))}</td>'
    )


def _breakable(name: str) -> str:
    """A name that breaks between its parts before it breaks inside one."""
    return re.sub(r"([:,+=])", r"\1<wbr>", escape(name))


def _popup(entry: Entry, name: str, curve: Curve | None) -> str:
    if curve is None:
        return "<small>one budget</small>"
    attack, points = curve
    return (
        f'<div class="curve" data-needs-script hidden><button type="button" aria-expanded="false" '
        f'aria-controls="{name}" aria-label="eps curve of {escape(entry.defense)}">eps curve</button>'
        f'<div class="pop" id="{name}">{eps_plot(points, f"{entry.defense} under {attack} over eps")}'
        f"<small>accuracy in % over eps, under {escape(attack)}</small></div></div>"
    )


def _verdict(entry: Entry) -> str:
    why = ", ".join(entry.reasons) if entry.rank else "not ranked"
    return f'<span class="badge {escape(entry.verdict)}">{escape(entry.verdict)}</span>' + (
        f'<span class="why">{escape(why)}</span>' if why else ""
    )


def _percent(mean: SeedMean) -> str:
    if not mean.values:
        return "-"
    return f"{100 * mean.value:.1f} <small>[{100 * mean.low:.1f}, {100 * mean.high:.1f}]</small>"


def _value(mean: SeedMean) -> str:
    return f"{mean.value:.6f}" if mean.values else ""


def _meter(mean: SeedMean) -> str:
    return meter(mean.value, mean.low, mean.high)


def _code(entry: Entry) -> str:
    return (entry.commit or entry.version)[:8] + ("+" if entry.dirty else "")


def entry_page(board: Board, entry: Entry, curve: Curve | None, pictures: str) -> str:
    """The page of one entry: its cells, audit, provenance, how to repeat it, pictures."""
    ranked = sum(each.rank is not None for each in board.entries)
    figures = [
        ("rank", f"{entry.rank} <small>of {ranked} ranked</small>" if entry.rank else "-"),
        ("worst case", _percent(entry.worst)),
        ("clean accuracy", _percent(entry.clean)),
        ("verdict", _verdict(entry)),
        ("training seeds", str(len(entry.seeds))),
        ("passes per image", f"{entry.passes:,}"),
    ]
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures)
    drawn = (
        f"<h2>Over the budget</h2><div class=plot-box>{eps_plot(curve[1], f'accuracy over eps under {curve[0]}')}</div>"
        f"<p class=about>Accuracy in percent over eps, under {escape(curve[0])}.</p>"
        if curve
        else "<h2>Over the budget</h2><p class=about>Measured at one budget only.</p>"
    )
    seeds = "".join(_seed(seed.seed, seed.weights, seed.worst.value, seed.clean.value) for seed in entry.seeds)
    cells = "".join(_cell(row, seed.seed) for seed in entry.seeds for row in seed.cells)
    body = f"""<p class="about"><a href="../index.html">All boards</a> &middot; {escape(board_title(board))}</p>
<dl class="figures">{shown}</dl>
<h2>Repeat it</h2>
<pre><code id="repeat">{escape(entry.repeat)}</code></pre>
<button class="copy" data-of="repeat" data-needs-script hidden>Copy</button>
<h2>Cells</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Cells"><table>
<thead><tr><th scope="col">attack</th><th scope="col">seed</th><th scope="col" class="number">last iterate</th>
<th scope="col" class="number">any iterate</th><th scope="col" class="number">attack success</th>
<th scope="col">verdict</th><th scope="col">key</th></tr></thead><tbody>
{cells}</tbody></table></div>
{_left_out([entry])}<h2>Seeds</h2>
<div class="scroll" tabindex="0" role="region" aria-label="Seeds"><table><thead><tr><th scope="col">seed</th>
<th scope="col" class="number">worst case</th><th scope="col" class="number">clean</th><th scope="col">weights, SHA-256</th></tr></thead>
<tbody>{seeds}</tbody></table></div>
{drawn}
<h2>Audit</h2>
{_audit(entry)}
{pictures}
<h2>Where it comes from</h2>
{_provenance(entry)}"""
    return page(f"{entry.defense}, {entry.model}, {board.norm} eps {eps_text(board.eps)}", body, depth=1)


def _cell(row: CellRow, seed: int) -> str:
    assert row.summary is not None
    rates = (row.summary.robust, row.summary.robust_any, row.summary.attack_success)
    numbers = "".join(f'<td class="number">{escape(rate_piece(rate).plain)}</td>' for rate in rates)
    why = "; ".join(f"{finding.check}: {finding.says}" for finding in doubts(row))
    return (
        f'<tr><th scope="row">{escape(row.attack)}</th><td>{seed}</td>{numbers}'
        f'<td><span class="badge {escape(row.verdict or "")}">{escape(row.verdict or "")}</span>'
        + (f'<span class="why">{escape(why)}</span>' if why else "")
        + f"</td><td><code>{row.key[:12]}</code></td></tr>\n"
    )


def _seed(seed: int, weights: Mapping[str, Any], worst: float, clean: float) -> str:
    sha256 = str(weights.get("sha256", "?"))
    return (
        f'<tr><th scope="row">{seed}</th><td class="number">{100 * worst:.1f}</td>'
        f'<td class="number">{100 * clean:.1f}</td><td class="name"><code>{escape(sha256)}</code></td></tr>'
    )


def _audit(entry: Entry) -> str:
    rows = [row for seed in entry.seeds for row in seed.cells]
    audited = next((row for row in rows if row.audit is not None), None)
    if audited is None or audited.audit is None:
        return '<p class="about">Unaudited: nobody looked for masked gradients yet. <code>bench audit</code> does.</p>'
    findings = "".join(
        f"<tr><th scope=row>{escape(f.check)}</th><td><span class='badge {escape(f.verdict)}'>{escape(f.verdict)}</span></td>"
        f"<td>{escape(f.says)}</td></tr>"
        for f in audited.audit.findings
    )
    return (
        f'<p class="about">{escape(audit_line(audited))}.</p><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Audit"><table><tbody>{findings}</tbody></table></div>'
    )


def _provenance(entry: Entry) -> str:
    origin = dict(entry.seeds[0].origin) if entry.seeds else {}
    packages = ", ".join(f"{name} {version}" for name, version in (origin.get("packages") or {}).items())
    trained = ", ".join(f"{name} {value}" for name, value in entry.recipe.items()) or "weights that were given"
    facts = {
        **({"tuned": entry.tuned} if entry.tuned else {}),
        "training": trained, "code": f"bench {entry.version} {_code(entry)}", "device": entry.device,
        "packages": packages or "?", "attack time": f"{entry.seconds:.0f} s", "command": str(origin.get("command", "?")),
        **{name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in entry.submitted.items()},
    }  # fmt: skip
    return '<dl class="facts">' + "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()
    ) + "</dl>"  # fmt: skip


def eps_text(eps: str) -> str:
    """A stored budget as it is written."""
    return format_eps(Fraction(eps))
