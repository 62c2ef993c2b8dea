"""Pages that are written from their outcomes, and checked against them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import environment

from bench.comparison import compare
from bench.errors import BenchError
from bench.figures.style import sum_of_numbers
from bench.pages.document import read_document
from bench.pages.make import differences, is_page, make_page, write_page
from bench.report.comparison import sentences
from bench.selection import chosen_cells
from bench.store import Store

pytest.importorskip("pyarrow")

BODY = """# A page

Prose before.
<!-- $ bench table -a pgd3 --eps 0.2 --format md -->
<!-- end -->
Prose between, which is 12.3% of nothing.

<!-- $ bench compare at vanilla -a fgsm --eps 0.1 --sentences --format md
     $ bench compare at vanilla -a pgd3 --eps 0.1 \\
         --sentences --format md -->
old
<!-- end -->

<!-- writes -->
```sh
bench table --format csv -o cells.csv
bench curve eps -a pgd3 -o curves.svg
bench leaderboard --format html -o board
```
"""
WORST = "<!-- $ bench worst --eps 0.1 -->\n<!-- end -->\n"


@pytest.fixture(scope="module")
def outcomes(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from bench.exchange.bundle import collect_bundle
    from bench.exchange.files import write_results

    store, file = Store(measured / "bench.sqlite"), tmp_path_factory.mktemp("outcomes") / "outcomes.parquet"
    write_results(file, collect_bundle(store, store.cells(status="done")))
    return file


def page_in(folder: Path, outcomes: Path, **documents: str) -> Path:
    folder.mkdir()
    shutil.copy(outcomes, folder)
    for name, text in documents.items():
        (folder / f"{name}.md").write_text(text)
    return folder


@pytest.fixture(scope="module")
def written(outcomes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two Markdown files, written."""
    folder = page_in(tmp_path_factory.mktemp("pages") / "page", outcomes, README=BODY, more=WORST)
    write_page(make_page(folder))
    return folder


@pytest.fixture
def page(written: Path, tmp_path: Path) -> Path:
    """The same, to spoil."""
    return Path(shutil.copytree(written, tmp_path / "page"))


def test_outputs_stand_between_the_comments_and_nothing_else_changes(written: Path, measured: Path) -> None:
    text = (written / "README.md").read_text()
    assert [line for line in BODY.split("\n") if line not in text.split("\n")] == ["old"]
    assert "--format md -->\nRobust accuracy in percent" in text
    store = Store(measured / "bench.sqlite")
    said = []
    for attack in ("fgsm", "pgd3"):
        one, two = (chosen_cells(store, defenses=[d], attacks=[attack], eps="0.1") for d in ("at", "vanilla"))
        said += [f"- {sentence}" for sentence in sentences(compare(store, one, two))]
    assert "-->\n" + "\n".join(said) + "\n<!-- end -->" in text
    more = (written / "more.md").read_text()
    assert more.startswith("<!-- $ bench worst --eps 0.1 -->\n```text\n")
    assert more.endswith("\n```\n<!-- end -->\n")
    assert (written / "cells.csv").read_text().count("\n") > 8
    assert sum_of_numbers((written / "curves.svg").read_bytes())
    assert len(list((written / "board" / "entries").iterdir())) == 6
    assert is_page(written)
    assert not is_page(written / "board")


def test_written_once_more_it_is_the_same_and_what_was_spoiled_is_found_and_mended(page: Path) -> None:
    made = make_page(page)
    assert differences(made) == []
    assert write_page(made) == []
    pristine = {path: path.read_bytes() for path in page.rglob("*") if path.is_file()}

    readme, csv, svg = (page / name for name in ("README.md", "cells.csv", "curves.svg"))
    readme.write_text(readme.read_text().replace("| at |", "| at8 |", 1))
    csv.write_text(csv.read_text() + "one more\n")
    svg.write_bytes(svg.read_bytes().replace(str(sum_of_numbers(svg.read_bytes())).encode(), b"0" * 64))
    (page / "board" / "entries" / "stranger.html").write_text("nobody made me")
    (page / "board" / "data.json").unlink()
    made = make_page(page)
    found = differences(made)
    assert [line.partition(": ")[0] for line in found] == [
        str(path)
        for path in (readme, csv, page / "board" / "data.json", svg, page / "board" / "entries" / "stranger.html")
    ]
    number = next(i for i, line in enumerate(readme.read_text().split("\n"), 1) if "| at8 |" in line)
    assert f"bench table -a pgd3 --eps 0.2 --format md: line {number}: '| at8 |" in found[0]
    assert f"line {csv.read_text().count(chr(10))} is too much: 'one more'" in found[1]
    assert [line.rpartition(": ")[2] for line in found[2:]] == [
        "is missing", "was not drawn from these numbers", "no command writes it any more",
    ]  # fmt: skip

    write_page(made)
    assert {path: path.read_bytes() for path in page.rglob("*") if path.is_file()} == pristine


def test_a_figure_that_another_matplotlib_drew_is_left(page: Path) -> None:
    svg = page / "curves.svg"
    svg.write_text(svg.read_text().replace("<svg ", "<svg data-drawn='otherwise' ", 1))
    other, made = svg.read_bytes(), make_page(page)
    assert differences(made) == []
    assert write_page(made) == []
    assert svg.read_bytes() == other


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("<!-- $ bench table -d nobody -->\n<!-- end -->", r"more\.md:1: bench table -d nobody: error: .*nobody"),
        ("<!-- $ bench table -o a.csv -->\n<!-- end -->", r"more\.md:1: .* writes files: it belongs into a block"),
        ("\n<!-- writes -->\n```sh\nbench table\n```", r"more\.md:4: bench table writes no file"),
        (
            "<!-- writes -->\n```sh\nbench table -o cells.csv\n```",
            r"more\.md:3|README\.md:\d+: .* writes cells\.csv, as",
        ),
    ],
)
def test_where_a_command_fails_nothing_is_written(outcomes: Path, tmp_path: Path, more: str, says: str) -> None:
    folder = page_in(tmp_path / "page", outcomes, README=BODY, more=more)
    with pytest.raises(BenchError, match=says):
        make_page(folder)
    assert {path.name for path in folder.iterdir()} == {"README.md", "more.md", "outcomes.parquet"}
    assert (folder / "README.md").read_text() == BODY


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
        ("<!-- $ bench table \\\n-->\n<!-- end -->", r"page\.md:1: nothing follows the backslash"),
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


def test_from_the_command_line(page: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench.pages", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)

    readme = page / "README.md"
    readme.write_text(readme.read_text().replace("| at |", "| at8 |", 1))
    differs = run("page", "--check")
    assert differs.returncode == 1, differs.stderr
    assert "page/README.md: bench table" in differs.stdout
    assert "| at8 |" in readme.read_text()
    page.rename((tmp_path / "results").mkdir() or tmp_path / "results" / "page")
    assert run().stdout == "wrote results/page/README.md\n"
    same = run("page", "--check")
    assert (same.returncode, same.stdout) == (0, "results/page: is what its outcomes make\n")
    wrong = run("nowhere")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "no folder 'nowhere'" in wrong.stderr
