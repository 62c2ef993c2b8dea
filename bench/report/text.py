"""How text tables look, whatever they are about."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from bench.statistics import Rate

KEY_LENGTH = 12
MOST_LINES = 200
"""More cells than this are counted, not listed."""
_MOST_COUNTS = 100


def percent(rate: Rate) -> str:
    """`51.2 [46.8, 55.6]`, in percent; `-` for a rate of nothing."""
    if not rate.n:
        return "-"
    return f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def counted(count: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{count:{',' if count > 9999 else ''}} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """`42 s`, `3.5 min` or `2.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def make_console() -> Console:
    """Stdout; wide where nobody's window limits it."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=160)


def make_table(title: str) -> Table:
    """A table in the house style."""
    return Table(title=title, title_justify="left", title_style="none", box=box.SIMPLE_HEAD, pad_edge=False)


def fits(console: Console, table: Table) -> bool:
    """Whether no cell of a table has to be folded."""
    return console.measure(table, options=console.options.update(max_width=1000)).maximum <= console.width


def emit(console: Console, table: Table) -> None:
    """Print a table without the blanks that pad its lines."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    console.print("\n".join(line.rstrip() for line in capture.get().splitlines()), soft_wrap=True)


def compact(title: str, lines: Sequence[Mapping[str, str]], movable: Sequence[str]) -> Table:
    """One row a line; what is the same in every line and may move stands in the title."""
    constant = [name for name in movable if len({line[name] for line in lines}) == 1]
    table = make_table(", ".join([title, *(f"{name} {lines[0][name]}" for name in constant)]))
    for name in lines[0]:
        if name not in constant:
            table.add_column(name, overflow="fold", no_wrap=name == "key")
    for line in lines:
        table.add_row(*(value for name, value in line.items() if name not in constant))
    return table


def counts(
    console: Console, title: str, lines: Mapping[tuple[str, ...], Mapping[str, int]], names: Sequence[str]
) -> None:
    """Print how many there are of each kind, as finely as fits in a hundred lines.

    Args:
        title: above the table.
        lines: kind, as words -> what is counted -> how many; all count the same.
        names: of the words; those at the end are given up first.
    """
    words = len(names)
    while words and len({kind[:words] for kind in lines}) > _MOST_COUNTS:
        words -= 1
    sums: dict[tuple[str, ...], dict[str, int]] = {}
    for kind, numbers in lines.items():
        line = sums.setdefault(kind[:words], dict.fromkeys(numbers, 0))
        for name, number in numbers.items():
            line[name] += number
    table = make_table(title)
    for name in names[:words]:
        table.add_column(name, overflow="fold")
    shown = list(next(iter(sums.values()), {}))
    for name in shown:
        table.add_column(name, justify="right")
    for kind, line in sums.items():
        table.add_row(*kind, *(f"{line[name]:,}" for name in shown))
    emit(console, table)
