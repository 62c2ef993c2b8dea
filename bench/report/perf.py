"""Speed comparisons: tables for people, Markdown, and for programs."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

from bench.perf.agreement import TOLERANCE, NetworkAgreement
from bench.perf.contestants import OURS
from bench.perf.lab import BF16, NOISY, STATES
from bench.perf.limit import BARE
from bench.perf.memory import HOW
from bench.perf.record import Record, Section
from bench.perf.sample import Entry
from bench.report.text import counted, duration, emit, make_console, make_table

FORMATS = ("text", "md", "json")
_MIB = 2**20


@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        title: what it shows.
        columns: heads.
        rows: as many cells each.
        notes: what a reader should know.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def render(record: Record, form: str = "text") -> None:
    """Print a record as text, Markdown or JSON."""
    if form == "json":
        print(json.dumps(record.to_json(), indent=1, allow_nan=False))
        return
    if form == "md":
        print("\n".join(markdown(record)))
        return
    console = make_console()
    for line in heading(record):
        _say(console, line)
    for sheet in sheets(record):
        table = make_table("")
        table.title = None
        for number, name in enumerate(sheet.columns):
            table.add_column(name, justify="right" if number else "left")
        for row in sheet.rows:
            table.add_row(*row)
        console.print()
        _say(console, sheet.title)
        emit(console, table)
        for note in sheet.notes:
            _say(console, note)
    for line in record.missing:
        _say(console, line)


def _say(console: Console, line: str) -> None:
    console.print(line, width=100)


def markdown(record: Record) -> list[str]:
    """The lines of a Markdown page."""
    lines = [*heading(record)]
    for sheet in sheets(record):
        lines += ["", f"**{sheet.title}**", "", f"| {' | '.join(sheet.columns)} |"]
        lines.append("| --- |" + " ---: |" * (len(sheet.columns) - 1))
        lines += [f"| {' | '.join(row)} |" for row in sheet.rows]
        lines += ["", *sheet.notes] if sheet.notes else []
    return [*lines, *(["", *(f"- {line}" for line in record.missing)] if record.missing else [])]


def heading(record: Record) -> list[str]:
    """Where, what and when, in two lines; a third where the run was cut off."""
    setup, about = record.setup, record.provenance
    loads = " to ".join(f"{load[0]:.2f}" for load in record.load if load) or "unknown"
    releases = ", ".join([f"torch {about['packages'].get('torch', '?')}", *record.releases.values()])
    lines = [
        f"{setup['model']}, T {setup['T']}, decay {setup['decay']}, images {setup['in_shape']}, float32; "
        f"{setup['origin']}. {about['device']}, {counted(setup['threads'], 'thread')}, load {loads}, {record.started}, "
        f"{duration(record.seconds)}.",
        f"{releases}.",
    ]
    return [*lines, "INTERRUPTED: only what was finished is shown."] if record.interrupted else lines


def sheets(record: Record) -> list[Sheet]:
    """The tables of what was measured."""
    if any("axis" in section.about for section in record.sections.values()):
        return [*growth_sheets(record)]
    makers = {"step": _step, "row": _row, "train": _train, "infer": _infer, "noise": _noise,
              "arithmetic": _arithmetic, "limit": _limit}  # fmt: skip
    found = [_agreement(record)]
    for name, make in makers.items():
        section = record.sections.get(name)
        if section is not None and any(entry.samples or entry.error for entry in section.entries):
            found.append(make(record, section))
    memory = record.sections.get("memory")
    if memory is not None and memory.entries and "step" not in record.sections:
        found.append(_memory(memory))
    return found


def _agreement(record: Record) -> Sheet:
    rows = [_network_cells(found) for found in record.networks]
    about = {found.network: found for found in record.networks}
    differ = [f"{name} differs and is not timed." for name, found in about.items() if not found.agrees]
    attacks = []
    for attack in record.attacks:
        if attack.error:
            attacks.append(f"{attack.name} FAILED and is not timed: {attack.error}.")
            continue
        told = (
            f"{attack.name}: {100 * attack.same:.1f}% of pixels equal, fools {attack.fooled} of {attack.images}, "
            f"ours {attack.ours}; loss {attack.loss_clean:.3f} to {attack.loss:.3f}, ours {attack.loss_ours:.3f}"
        )
        attacks.append(told + ("." if attack.agrees else "; NOT the same attack, not timed."))
    columns = ("network", "logits", "gradient", "weights' gradient", "logits, float32", "gradient, float32", "flips")
    note = (
        f"Largest differences from ours, relative to our largest value; float64 unless said otherwise, up to "
        f"{TOLERANCE:g} passes. Weights: in training mode. Flips: spikes that differ in float32."
    )
    return Sheet("Same function?", columns, tuple(rows), (note, *differ, *attacks))


def _network_cells(found: NetworkAgreement) -> tuple[str, ...]:
    if found.error:
        return (found.network, f"FAILED: {found.error}", *[""] * 5)
    values = (found.logits, found.gradient, found.weights, found.logits32, found.gradient32)
    flips = "-" if found.flips < 0 else f"{found.flips} of {found.neurons}"
    return (found.network, *("-" if value != value else f"{value:.1e}" for value in values), flips)


def _rate(entry: Entry | None) -> str:
    if entry is None:
        return "-"
    if not entry.samples:
        return "FAILED" if entry.error else "-"
    rate = f"{entry.rate:.{2 if entry.rate < 10 else 1 if entry.rate < 100 else 0}f}"
    return rate if entry.spread != entry.spread else f"{rate} ±{100 * entry.spread:.0f}%"


def _times(ours: Entry | None, theirs: Entry | None) -> str:
    """How many times faster ours is; `-` where one of them was not measured."""
    ratio = math.nan if ours is None or theirs is None else ours.over(theirs)
    return "-" if ratio != ratio else f"{ratio:.2f}x"


def _held(section: Section, name: str, state: str = "tuned") -> Entry | None:
    return next((entry for entry in section.entries if (entry.name, entry.state) == (name, state)), None)


def _names(section: Section) -> list[str]:
    return list(dict.fromkeys(entry.name for entry in section.entries))


def _failures(section: Section) -> tuple[str, ...]:
    return tuple(f"{entry.name} ({entry.state}) FAILED: {entry.error}." for entry in section.entries if entry.error)


def _passes(entry: Entry | None, per: float) -> tuple[str, str]:
    """Forwards and backwards for each unit of work times `per`."""
    if entry is None or not entry.samples:
        return ("-", "-")
    sample = entry.samples[0]
    return (f"{sample.forwards / sample.work * per:g}", f"{sample.backwards / sample.work * per:g}")


def _step(record: Record, section: Section) -> Sheet:
    about, ours = section.about, _held(section, OURS)
    limits, memory = record.sections.get("limit", Section()), record.sections.get("memory", Section())
    bare = _held(limits, BARE)
    peak = max(limits.about.get("peak", {}).values(), default=math.nan)
    cost = limits.about.get("flops", math.nan)
    rows = []
    for name in _names(section):
        tuned, default, held = _held(section, name), _held(section, name, "default"), _held(memory, name)
        rate = tuned.rate if tuned else math.nan
        shares = (rate / bare.rate if bare and bare.samples else math.nan, rate * cost / peak)
        rows.append(
            (
                name,
                _rate(tuned),
                _times(ours, tuned),
                _rate(default),
                _times(ours, default),
                *_passes(tuned, about["steps"]),
                *("-" if share != share else f"{100 * share:.0f}%" for share in shares),
                _megabytes(held),
            )
        )
    columns = (
        "attack step",
        "img·steps/s",
        "ours/theirs",
        "as users run it",
        "ours/theirs",
        f"fwds for {about['steps']}",
        "bwds",
        "of bare convs",
        "of peak",
        "peak MiB",
    )
    title = f"One PGD step (forward and input gradient), batch {about['batch']}, {about['steps']} steps a run"
    notes = [
        f"Medians of the rates, ± half their range, and of the ratios within a round. "
        f"First figures: {STATES['tuned']}, one process, in turns. As users run it: "
        f"{STATES['default']}, in a process of its own, up to {about['default_batch']} images at once; "
        "the ratio is against ours as we run it.",
        *_failures(section),
    ]
    return Sheet(title, columns, tuple(rows), (*notes, *_how(memory)))


def _how(memory: Section) -> list[str]:
    ways = {sample.extra.get("how") for entry in memory.entries for sample in entry.samples}
    return [f"Memory: {HOW[way]}." for way in sorted(way for way in ways if way in HOW)]


def _megabytes(entry: Entry | None) -> str:
    if entry is None or not entry.samples:
        return "-"
    return f"{entry.samples[0].extra['peak_bytes'] / _MIB:.0f}"


def _row(record: Record, section: Section) -> Sheet:
    about, ours = section.about, _held(section, OURS)
    shown = [name for name in ("clean", *about["attacks"]) if name in ("clean", about["attacks"][-1])]
    rows = []
    for entry in section.entries:
        accuracy = entry.samples[0].extra["accuracy"] if entry.samples else {}
        seconds = "-" if not entry.samples else f"{entry.samples[0].work / entry.rate:.1f}"
        state = "" if entry.name == OURS else entry.state
        cells = [f"{100 * accuracy[name]:.0f}" if name in accuracy else "-" for name in shown]
        rows.append((entry.name, state, seconds, _rate(entry), _times(ours, entry), *_passes(entry, 1), *cells))
    passes, shares = ("fwds/image", "bwds/image"), (f"{name} %" for name in shown)
    columns = ("table row", "state", "s", "images/s", "ours/theirs", *passes, *shares)
    title = (
        f"A whole row: clean, {', '.join(about['attacks'])}; {about['images']} images, crafted and scored in float32"
    )
    note = (
        "Measured whole, nothing extrapolated. Ours: as bench run, one trajectory for every step count of PGD, "
        "from a random start; peers: every attack on its own and one scoring pass each."
    )
    return Sheet(title, columns, tuple(rows), (note, *_failures(section)))


def _train(record: Record, section: Section) -> Sheet:
    methods = list(dict.fromkeys(name.partition(": ")[2] for name in _names(section)))
    others = [name for name in dict.fromkeys(name.partition(": ")[0] for name in _names(section)) if name != OURS]
    rows = []
    for method in methods:
        ours = _held(section, f"{OURS}: {method}")
        cells = [method, _rate(ours)]
        for name in others:
            theirs = _held(section, f"{name}: {method}")
            cells += [_rate(theirs), _times(*((theirs, ours) if name.endswith(BF16) else (ours, theirs)))]
        rows.append(tuple(cells))
    columns = ("training", "ours, images/s", *(cell for name in others for cell in (name, _against(name))))
    title = f"Training, batch {section.about['batch']}: bench's own loop beside a plain one"
    note = "bf16 is another arithmetic: for training and screening, not for the rows of a table."
    return Sheet(title, columns, tuple(rows), (note, *_failures(section)))


def _against(name: str) -> str:
    return "to float32" if name.endswith(BF16) else "ours/theirs"


def _infer(record: Record, section: Section) -> Sheet:
    ours = _held(section, OURS)
    rows = [(entry.name, _rate(entry), _times(ours, entry)) for entry in section.entries]
    title = f"Inference, batch {section.about['batch']}"
    return Sheet(title, ("network", "images/s", "ours/theirs"), tuple(rows), _failures(section))


def _noise(record: Record, section: Section) -> Sheet:
    rows = []
    ours = _held(section, OURS + NOISY)
    for name in _names(section):
        if name.endswith(NOISY):
            continue
        plain, noisy = _held(section, name), _held(section, name + NOISY)
        cost = _times(plain, noisy).replace("x", "") if plain and noisy else "-"
        rows.append((name, _rate(plain), _rate(noisy), cost, _times(ours, noisy)))
    columns = ("PGD step by our loop", "plain neurons", "noisy neurons", "cost of noise", "ours/theirs, noisy")
    note = "Noise of variance 0.4. Ours is counter-based (Philox), the same whatever the batch; theirs torch.randn."
    title = f"Noisy neurons, batch {section.about['batch']}"
    return Sheet(title, columns, tuple(rows), (note, *_failures(section)))


def _arithmetic(record: Record, section: Section) -> Sheet:
    fast = _held(section, "fast")
    rows = []
    for entry in section.entries:
        found = section.about["agreement"].get(entry.name, {"cosine": 1.0, "signs": 1.0})
        shown = (f"{found['cosine']:.3f}", f"{100 * found['signs']:.1f}%")
        rows.append((entry.name, _rate(entry), _times(entry, fast), *shown))
    columns = ("ours, PGD step", "img·steps/s", "to fast", "gradient's cosine", "equal signs")
    note = (
        "Fast: float32, fused, what every other table here and every published row is computed with. bf16: on "
        "bfloat16, NOT the same function. Reference: float32, the equations as written, nothing fused."
    )
    return Sheet(f"Arithmetic, batch {section.about['batch']}", columns, tuple(rows), (note, *_failures(section)))


def _limit(record: Record, section: Section) -> Sheet:
    about = section.about
    bare, ours = _held(section, BARE), _held(section, OURS)
    peak = max(about["peak"].values(), default=math.nan)
    rows = []
    for entry in (entry for entry in (bare, ours) if entry is not None and entry.samples):
        rate = entry.rate * about["flops"]
        share = f"{100 * entry.rate / bare.rate:.0f}%" if bare and bare.samples else "-"
        rows.append(
            (entry.name, _rate(entry), f"{rate / 1e9:.0f}", share, "-" if peak != peak else f"{100 * rate / peak:.0f}%")
        )
    columns = ("PGD step", "img·steps/s", "GFLOP/s", "of bare convs", "of peak")
    best = max(about["peak"], key=lambda name: about["peak"][name], default="")
    found = f"{peak / 1e9:.0f} GFLOP/s, {best}" if best else "not measured"
    note = (
        f"{about['flops'] / 1e9:.2f} GFLOP an image and step in convolutions and linear layers. Bare: these layers "
        f"alone, channels_last, on recorded inputs. Peak: {found}, float32, the best of all runs."
    )
    return Sheet("Limits", columns, tuple(rows), (note,))


def _memory(section: Section) -> Sheet:
    rows = [(entry.name, _megabytes(entry)) for entry in section.entries]
    title = f"Peak memory of a PGD step, batch {section.about['batch']}"
    return Sheet(title, ("contestant", "MiB"), tuple(rows), (*_how(section), *_failures(section)))


def growth_sheets(record: Record) -> Sequence[Sheet]:
    """The tables of a run of `bench perf --growth`."""
    found = []
    for name, section in record.sections.items():
        rows = []
        for entry in section.entries:
            if not entry.samples:
                rows.append((entry.name, "FAILED" if entry.error else "-", "-"))
                continue
            rows.append((entry.name, f"{entry.samples[-1].seconds:.2f}", _megabytes(entry)))
        columns = (section.about.get("axis", name), "s", "MiB")
        found.append(Sheet(section.about["title"], columns, tuple(rows), _failures(section)))
    return found
