"""Writing the pages into a folder, whole or not at all."""

import tempfile
from collections.abc import Sequence
from fractions import Fraction
from importlib.resources import files
from pathlib import Path

from bench.errors import BenchError
from bench.frames import written_frame
from bench.leaderboard.entry import Board, Entry
from bench.leaderboard.sheet import boards_frame
from bench.leaderboard.site.pages import Curve, entry_page, eps_text, index
from bench.leaderboard.site.pictures import pictures
from bench.store import CellRow, Store

_MARKER = ".bench-leaderboard"
_ASSETS = ("style.css", "script.js")


def write_site(
    boards: Sequence[Board],
    store: Store,
    folder: Path,
    checkpoints: Path | None = None,
    data_dir: Path | None = None,
    model_name: str | None = None,
) -> Path:
    """Write a leaderboard as a folder of pages that work without a server and without a network.

    A folder that this wrote before is replaced; the old one stays until the new one is complete.

    Args:
        boards: what to show.
        store: where curves and outcomes are.
        folder: where to write.
        checkpoints, data_dir: where weights and images are; without them the pages have no attacked images.
        model_name: see `stored_network`; of other models that are code of files the pages have none either.

    Returns:
        the first page.

    Raises:
        BenchError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and not (folder / _MARKER).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BenchError(f"'{folder}' exists and is not a leaderboard; choose another folder with --output")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            _write(boards, store, new, checkpoints, data_dir, model_name)
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
    except OSError as error:
        raise BenchError(f"cannot write '{folder}': {error.strerror or error}") from error
    return folder / "index.html"


def _write(
    boards: Sequence[Board],
    store: Store,
    new: Path,
    checkpoints: Path | None,
    data_dir: Path | None,
    model_name: str | None,
) -> None:
    (new / "entries").mkdir(parents=True)
    (new / _MARKER).write_text("written by bench leaderboard\n")
    for name in _ASSETS:
        (new / name).write_text((files(__package__) / name).read_text(encoding="utf-8"), encoding="utf-8")
    shown = {entry.seeds[0].cells[0].weights_key for board in boards for entry in board.entries if entry.seeds}
    cells: dict[str, list[CellRow]] = {}
    for row in store.cells(status="done", weights_key=shown):
        cells.setdefault(row.weights_key, []).append(row)
    curves = {
        entry.slug: eps_curve(entry, cells[entry.seeds[0].cells[0].weights_key] if entry.seeds else ())
        for board in boards
        for entry in board.entries
    }
    for board in boards:
        for entry in board.entries:
            drawn = pictures(entry, store, checkpoints, data_dir, model_name)
            text = entry_page(board, entry, curves[entry.slug], drawn)
            (new / "entries" / f"{entry.slug}.html").write_text(text, encoding="utf-8")
    (new / "index.html").write_text(index(boards, curves), encoding="utf-8")
    frame = boards_frame(boards)
    (new / "data.csv").write_text(written_frame(frame, "csv") + "\n", encoding="utf-8")
    (new / "data.json").write_text(written_frame(frame, "json") + "\n", encoding="utf-8")


def eps_curve(entry: Entry, everything: Sequence[CellRow]) -> Curve | None:
    """Robust accuracy (any iterate) of an entry's first seed over all budgets of one attack, from clean accuracy on.

    The attack is the one with most budgets, of several the strongest of the entry. None where there is one budget.
    """
    if not entry.seeds:
        return None
    seed = entry.seeds[0]
    first = seed.cells[0]
    network = (first.weights_key, first.spec["model"], first.n, first.norm)
    same = [
        row
        for row in everything
        if (row.weights_key, row.spec["model"], row.n, row.norm) == network
        and row.summary is not None
        and row.verdict != "invalid"
        and row.spec["attack"]["family"] != "clean"
    ]  # fmt: skip
    budgets: dict[str, dict[str, CellRow]] = {}
    for row in same:
        budgets.setdefault(row.attack, {})[row.eps] = row
    attack = max(budgets, key=lambda name: (len(budgets[name]), name == seed.strongest, name))
    if len(budgets[attack]) < 2:
        return None
    points = [(0.0, "0", seed.clean.value, seed.clean.low, seed.clean.high)]
    for eps, row in sorted(budgets[attack].items(), key=lambda item: Fraction(item[0])):
        assert row.summary is not None
        rate = row.summary.robust_any
        points.append((float(Fraction(eps)), eps_text(eps), rate.value, rate.low, rate.high))
    return attack, points
