"""What starts at once: help and lists import nothing heavy, and say the same as what they did not load."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import ROOT, Run, environment
from typer.main import get_command

from bench.cli import app
from bench.registry import KINDS, Registry
from bench.report.listing import describe, line, loaded_card, overview
from bench.source import read_card

HEAVY = ("torch", "numpy", "pandas", "matplotlib", "sqlalchemy", "scipy")
PROBE = f"""
import sys
from bench.cli import app
for line in sys.stdin.read().splitlines():
    try:
        app(line.split(), prog_name="bench")
    except SystemExit as end:
        assert not end.code, line
print(*[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


def imported_by(*commands: str, cwd: Path = ROOT) -> list[str]:
    """Which heavy packages are there after some commands were run in one process."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input="\n".join(commands), capture_output=True, text=True, env=environment(), cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr.split("\n")[-2].split()


def every_command() -> list[str]:
    """`run`, `leaderboard submit`: all that has a --help of its own."""
    found = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        found += [name, *(f"{name} {inner}" for inner in getattr(command, "commands", ()))]
    return found


def test_no_help_imports_anything_heavy() -> None:
    commands = every_command()
    assert {"run", "ls", "leaderboard submit"} <= set(commands)
    assert imported_by("--help", "--version", *(f"{command} --help" for command in commands)) == []


def test_no_list_of_parts_imports_anything_heavy() -> None:
    kinds = [f"ls {kind}s" for kind in KINDS]
    assert imported_by("ls", "ls --json", *kinds, *(f"{kind} --json" for kind in kinds)) == []


def test_reading_a_store_takes_no_torch(results: Path) -> None:
    cells = json.loads(
        subprocess.run(
            [sys.executable, "-m", "bench", "ls", "runs", "--json"],
            capture_output=True, text=True, env=environment(), cwd=results.parent, check=True,
        ).stdout
    )  # fmt: skip
    key = cells[0]["key"]
    light = imported_by("ls runs", "ls runs --json", f"show {key} --samples", "export x.json", cwd=results.parent)
    assert light == ["numpy", "sqlalchemy"]
    assert "torch" not in imported_by(
        "table", "table -o t.md", "table --eps 0.1", "export x.json -a fgsm", cwd=results.parent
    )


def test_help_is_there_at_once() -> None:
    """Generous, for a busy machine: it takes a fifth of that."""
    took = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "bench", "--help"], capture_output=True, env=environment(), check=True)
        took.append(time.perf_counter() - start)
    assert min(took) < 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_from_source_is_what_the_part_says(kind: str) -> None:
    registry = KINDS[kind]
    ours = [entry for entry in map(registry.entry, registry.names()) if entry.builtin]
    assert ours
    for entry in ours:
        read = read_card(entry.target)
        assert read is not None, f"{entry.name} is written so that it must be imported to be listed"
        assert line(kind, entry, read) == line(kind, entry, loaded_card(kind, entry))
        assert read.origin.rpartition(":")[0].endswith(".py")


def test_a_part_that_is_not_written_plainly_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "oddly.py").write_text(
        "class Made:\n    def __init__(self, summary): self.summary = summary\n"
        "COMPUTED = Made('a' + 'b')\n"
        "def late(x=len('ab')):\n    '''Late.'''\n"
        "plain = late\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for attribute in ("COMPUTED", "late", "plain", "none"):
        assert read_card(f"oddly:{attribute}") is None
    assert read_card("no_such_package:x") is None
    assert "oddly" not in sys.modules
    monkeypatch.setitem(KINDS, "defense", Registry("defense", {"late": "oddly:late"}))
    assert describe("defense")[0]["summary"] == "Late. (x=2)"


def test_the_overview_names_every_part_and_loads_no_package(bench: Run, tmp_path: Path) -> None:
    names = overview()
    assert list(names) == [f"{kind}s" for kind in KINDS]
    assert {"pgdK", "fgsm"} <= set(names["attacks"])
    info = tmp_path / "thirdparty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bench.attacks]\nbroken = nowhere_to_be_found:x\n")
    done = bench("ls")
    assert done.returncode == 0, done.stderr
    for kind in KINDS:
        assert f"{kind}s  " in done.stdout
    environ = environment()
    environ["PYTHONPATH"] = f"{tmp_path}:{environ['PYTHONPATH']}"
    told = subprocess.run(
        [sys.executable, "-m", "bench", "ls", "--json"], capture_output=True, text=True, env=environ, check=True
    )
    assert json.loads(told.stdout)["attacks"] == [*names["attacks"], "broken"]
