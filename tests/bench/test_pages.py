"""Pages that are written from their outcomes, and checked against them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, environment

from bench.errors import BenchError
from bench.figures.style import sum_of_numbers
from bench.pages.commands import Ran
from bench.pages.document import Command, read_document
from bench.pages.make import Page, _written, differences, is_page, make_page, write_page

pytest.importorskip("pyarrow")

BODY = """# A page

Prose before.
<!-- $ bench table -a pgd10 --format md -->
<!-- end -->
Prose between, which is 12.3% of nothing.

<!-- $ bench compare tgo+at at --sentences --format md
     $ bench compare tgo vanilla \\
         --sentences --format md -->
old
<!-- end -->

<!-- writes -->
```sh
bench table --format csv -o cells.csv
bench curve eps -a pgd10 -o curves.svg
bench leaderboard --format html -o board
```
"""
COMMITTED = ROOT / "results" / "cifar10-cnn-medium"
WORST = "<!-- $ bench worst -->\n<!-- end -->\n"


def page_in(folder: Path, **documents: str) -> Path:
    folder.mkdir()
    shutil.copy(COMMITTED / "outcomes.parquet", folder)
    for name, text in documents.items():
        (folder / f"{name}.md").write_text(text)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two Markdown files, written."""
    folder = page_in(tmp_path_factory.mktemp("pages") / "page", README=BODY, more=WORST)
    write_page(make_page(folder))
    return folder


@pytest.fixture
def page(written: Path, tmp_path: Path) -> Path:
    """The same, to spoil."""
    return Path(shutil.copytree(written, tmp_path / "page"))


def test_outputs_stand_between_the_comments_and_nothing_else_changes(written: Path) -> None:
    text = (written / "README.md").read_text()
    assert [line for line in BODY.split("\n") if line not in text.split("\n")] == ["old"]
    assert "--format md -->\nRobust accuracy in percent" in text
    said = [line for line in (COMMITTED / "README.md").read_text().split("\n") if " on the same 1000 images" in line]
    assert len(said) == 12
    assert "-->\n" + "\n".join(f"- {line}" for line in said) + "\n<!-- end -->" in text
    more = (written / "more.md").read_text()
    assert more.startswith("<!-- $ bench worst -->\n```text\n")
    assert more.endswith("\n```\n<!-- end -->\n")
    assert (written / "cells.csv").read_text().count("\n") > 8
    assert sum_of_numbers((written / "curves.svg").read_bytes())
    assert len(list((written / "board" / "entries").iterdir())) == 4
    assert is_page(written)
    assert not is_page(written / "board")


def test_written_once_more_it_is_the_same_and_what_was_spoiled_is_found_and_mended(page: Path) -> None:
    made = make_page(page)
    assert differences(made) == []
    assert write_page(made) == []

    readme, csv, svg, board = (page / name for name in ("README.md", "cells.csv", "curves.svg", "board"))
    # Another Matplotlib draws the same numbers otherwise: such a figure is left as it is.
    svg.write_text(svg.read_text().replace("<svg ", "<svg data-drawn='otherwise' ", 1))
    assert differences(made) == []
    assert write_page(made) == []
    pristine = {path: path.read_bytes() for path in page.rglob("*") if path.is_file() and path != svg}

    readme.write_text(readme.read_text().replace("| at |", "| at8 |", 1))
    csv.write_text(csv.read_text() + "one more\n")
    svg.write_text(svg.read_text().replace(str(sum_of_numbers(svg.read_bytes())), "0" * 64))
    (board / "entries" / "stranger.html").write_text("nobody made me")
    (board / "data.json").unlink()
    found = differences(made)
    assert [line.partition(": ")[0] for line in found] == [
        str(path) for path in (readme, csv, svg, board / "data.json", board / "entries" / "stranger.html")
    ]
    number = next(i for i, line in enumerate(readme.read_text().split("\n"), 1) if "| at8 |" in line)
    assert f"bench table -a pgd10 --format md: line {number}: '| at8 |" in found[0]
    assert f"line {csv.read_text().count(chr(10))}: 'one more' must be ''" in found[1]
    assert [line.rpartition(": ")[2] for line in found[2:]] == [
        "was not drawn from these numbers", "is missing", "no command writes it any more",
    ]  # fmt: skip

    assert len(write_page(made)) == 5
    assert differences(made) == []
    assert {path: path.read_bytes() for path in page.rglob("*") if path.is_file() and path != svg} == pristine


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("<!-- $ bench table -d nobody -->\n<!-- end -->", r"more\.md:1: bench table -d nobody: error: .*nobody"),
        ("<!-- $ bench table -o a.csv -->\n<!-- end -->", r"more\.md:1: .* writes files: it belongs into a block"),
        ("\n<!-- writes -->\n```sh\nbench table\n```", r"more\.md:4: bench table writes no file"),
        (
            "<!-- writes -->\n```sh\nbench table -o a.csv\nbench table -d at -o a.csv\n```",
            r"more\.md:4: .* writes a\.csv, as",
        ),
    ],
)
def test_where_a_command_fails_nothing_is_written(tmp_path: Path, more: str, says: str) -> None:
    folder = page_in(tmp_path / "page", README=WORST, more=more)
    with pytest.raises(BenchError, match=says):
        make_page(folder)
    assert {path.name for path in folder.iterdir()} == {"README.md", "more.md", "outcomes.parquet"}
    assert (folder / "README.md").read_text() == WORST


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<!-- $ bench table -->\n| a |\n", r"page\.md:1: no line <!-- end --> follows"),
        (
            "\n<!-- $ bench table -->\n\n<!-- $ bench worst -->\n<!-- end -->",
            r"page\.md:2: no line <!-- end --> follows",
        ),
        ("<!-- $ bench table\n", r"page\.md:1: this comment does not end"),
        ("<!-- $ rm -r x -->\n<!-- end -->", r"page\.md:1: '\$ rm -r x' must begin with '\$ bench'"),
        ("<!-- $ bench table\nbench worst -->\n<!-- end -->", r"page\.md:2: 'bench worst' must begin with '\$ bench'"),
        ("<!-- $ bench table 'a -->\n<!-- end -->", r"page\.md:1: No closing quotation"),
        ("<!-- writes -->\n```sh\nbench table \\\n```", r"page\.md:3: nothing follows the backslash"),
        ("<!-- writes -->\nbench table -o a.csv\n", r"page\.md:1: a line ```sh must follow"),
        ("<!-- writes -->\n```sh\nbench table -o a.csv\n", r"page\.md:2: this block does not end"),
        ("<!-- writes -->\n```sh\nls > a\n```\n", r"page\.md:3: 'ls > a' must begin with 'bench'"),
    ],
)
def test_what_is_no_page_is_said_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(BenchError, match=says):
        read_document(tmp_path / "page.md")


def test_other_comments_are_none_of_its_business(tmp_path: Path) -> None:
    text = "<!-- shows: a.json -->\n| a |\n<!-- end -->\n\n<!-- $5 is a price -->\n"
    (tmp_path / "page.md").write_text(text)
    document = read_document(tmp_path / "page.md")
    assert (document.sections, document.writers) == ((), ())
    assert document.filled(()) == text


def test_from_the_command_line(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.pages", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240)

    (tmp_path / "results" / "no-page").mkdir(parents=True)
    page_in(tmp_path / "results" / "page", README=WORST)
    differs = run("page", "--check")
    assert (differs.returncode, differs.stderr) == (1, "")
    assert differs.stdout.startswith("results/page/README.md: bench worst: line 2")
    assert (tmp_path / "results" / "page" / "README.md").read_text() == WORST
    assert run().stdout == "wrote results/page/README.md\n"
    wrong = run("nowhere")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "no folder 'nowhere'" in wrong.stderr


@pytest.mark.parametrize("other", ["..", ".", "/", "beside"])
def test_a_folder_that_a_command_only_reads_is_left_alone(tmp_path: Path, other: str) -> None:
    ran, page = tmp_path / "ran", tmp_path / "all" / "page"
    (ran / "beside").mkdir(parents=True)
    (ran / "board").mkdir()
    (ran / "board" / "index.html").write_text("new")
    (page / "beside").mkdir(parents=True)
    (page / "board").mkdir()
    kept, stale = [page.parent / "data.npz", page / "README.md", page / "beside" / "x"], page / "board" / "old.html"
    for path in (*kept, stale):
        path.write_text("dear")
    arguments = ("leaderboard", "--data-dir", other, "-o", "board/")
    files, trees = _written([Command(arguments, "README.md:1")], {arguments: Ran(0, "", "", ran)})
    assert trees == {Path("board")}
    assert write_page(Page(page, {}, files, trees)) == [page / "board" / "index.html", stale]
    assert all(path.exists() for path in kept)
    assert not stale.exists()
