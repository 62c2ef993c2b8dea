"""What the formats of a table make of any text: nothing but that text."""

import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bench.report.formats import html, latex, markdown, write_sheet
from bench.report.sheet import MISSING, Piece, Sheet

HOSTILE = [
    "a_b%c&d#e$f~g^h\\i{j}k", "<script>alert(1)</script>", "x|y*z`w", "ελ±†≤ 漢字", '"quoted" & more', "[2pt]", "*star",
    "[a](http://b)", "![a](http://b)", "&lt;b&gt;", "$x$", "Ąħ \x07\x1b[31m", "\\end{table}", "**b** ~~c~~", "été Łódź",
]  # fmt: skip


def sheet(words: list[str] | None = None) -> Sheet:
    words = HOSTILE if words is None else words
    rows = tuple((Piece(word), Piece("1.0", f"[{word}]", word, True, "†")) for word in words)
    return Sheet(("defense", words[0]), rows, 1, frozenset({1}), " and ".join(words), (words[0],))


class Reader(HTMLParser):
    """The tags and the text of a document."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_names_stay_text_in_html() -> None:
    reader = Reader()
    reader.feed(html.page(write_sheet(sheet(), "html"), HOSTILE[1]))
    known = {"html", "head", "meta", "title", "style", "body", "figure", "figcaption", "div", "table", "thead", "tbody"}
    assert {*reader.tags} <= known | {"tr", "th", "td", "strong", "small", "sup", "br", "p"}
    assert all(word in reader.text for word in HOSTILE)


def test_a_page_stands_alone() -> None:
    text = html.page(write_sheet(sheet(["plain"]), "html"), "title")
    assert "width=device-width" in text
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"(src|href)=|url\(|@import", text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=12) | st.sampled_from(HOSTILE))
def test_markdown_is_read_back_as_it_was_by_another_parser(word: str) -> None:
    shown = " ".join(re.sub(r"[\x00-\x1f]", "", word).split())
    if not shown:
        return
    read = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(
        write_sheet(Sheet(("head",), ((Piece("a"),), (Piece(shown),))), "md")
    )  # fmt: skip
    cells = re.findall(r"<td>(.*?)</td>", read, re.S)
    assert [unescape(cell) for cell in cells] == ["a", shown]


def test_markdown_keeps_its_columns() -> None:
    table = [line for line in write_sheet(sheet(), "md").splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {3}


def test_intervals_stay_readable_in_the_source_of_markdown() -> None:
    assert markdown.escape("51.2 [46.8, 55.6]") == "51.2 [46.8, 55.6]"


def compiled(folder: Path, *tables: str, packages: str = "") -> str:
    """The text of the PDF that LaTeX makes of tables; fails where it complains."""
    head = rf"\documentclass{{article}}{packages}\usepackage{{booktabs,graphicx}}\begin{{document}}"
    (folder / "t.tex").write_text("\n".join([head, *tables, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull \\hbox" not in done.stdout
    if shutil.which("pdftotext") is None:
        pytest.skip("compiled; its text was not looked at, for pdftotext is not installed")
    read = ["pdftotext", "-layout", "t.pdf", "-"]
    return subprocess.run(read, cwd=folder, capture_output=True, text=True, timeout=60, check=True).stdout


needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


@needs_latex
def test_latex_compiles_whatever_the_names_and_shows_them(tmp_path: Path) -> None:
    words = [word for word in HOSTILE if word.isascii() and word.isprintable()]
    words += ["--preset", "a---b"]
    short = replace(sheet(words), caption="", notes=())
    # Fonts whose letters a reader of the PDF can name.
    packages = r"\usepackage{cmap}\usepackage[T1]{fontenc}"
    read = compiled(tmp_path, latex.write(short), latex.write(replace(sheet(), caption="")), packages=packages)
    flat = read.replace("”", '"').replace("‘", "`")
    assert not [word for word in words if word not in flat]
    assert "été Łódź" in read


@needs_latex
def test_latex_compiles_with_any_letter_and_any_control_character(tmp_path: Path) -> None:
    """In the fonts of a document that names none."""
    letters = [chr(i) for i in range(1, 0x250)]
    rows = [Piece("x" + "".join(letters[i : i + 20])) for i in range(0, len(letters), 20)]
    assert "x" in compiled(tmp_path, latex.write(Sheet(("name",), tuple((row,) for row in rows))))


def test_latex_sets_the_best_in_bold_and_a_missing_value_as_a_dash() -> None:
    text = latex.write(Sheet(("a", "b", "c"), ((Piece("x"), Piece("50.0", "[1, 2]", bold=True), Piece(MISSING)),)))
    assert r"x & \textbf{50.0} {\scriptsize [1, 2]} & - \\" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1


def test_latex_sets_the_intervals_of_wide_tables_below_their_values() -> None:
    row = (Piece("x"), *[Piece("50.0", "[1, 2]", "40.0 (+10.0)", mark="†")] * 6)
    lines = latex.write(Sheet(tuple("abcdefg"), (row,))).splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip().startswith("x &"))
    assert lines[at] == "    x" + r" & 50.0$^{\dagger}$" * 6 + r" \\"
    assert lines[at + 1].endswith(r"{\scriptsize [1, 2]} \\")
    assert lines[at + 2].endswith(r"{\scriptsize 40.0 (+10.0)} \\[3pt]")


@given(st.integers(1, 120), st.booleans(), st.sets(st.integers(0, 119)))
def test_latex_breaks_long_tables_over_pages_and_loses_no_row_and_no_rule(
    rows: int, stacked: bool, breaks: set[int]
) -> None:
    columns = tuple("abcdefgh") if stacked else ("a", "b")
    value = Piece("50.0", "[1, 2]", "40.0")
    content = tuple((Piece(f"row{i}"), *[value] * (len(columns) - 1)) for i in range(rows))
    inside = {row for row in breaks if 0 < row < rows}
    whole = Sheet(columns, content, breaks=frozenset({0, *inside}), caption="c", notes=("n",), label="l")
    parts = latex.write(whole).split("\n\n")
    shown = [re.findall(r"^ +(row\d+) &", part, re.MULTILINE) for part in parts]
    assert [name for names in shown for name in names] == [f"row{i}" for i in range(rows)]
    assert max(map(len, shown)) <= 16
    starts = {int(names[0].removeprefix("row")) for names in shown[1:]}
    # Between blocks, unless one alone is too long.
    edges = sorted({0, *inside, rows})
    longest = max(b - a for a, b in pairwise(edges))
    assert longest > 16 or starts <= inside
    # One below each head, one above each block that no page begins with.
    assert sum(part.count(r"\midrule") for part in parts) == len(parts) + len(inside - starts)
    assert [r"\label{tab:l}" in part for part in parts] == [True] + [False] * (len(parts) - 1)
    assert [r"\addtocounter{table}{-1}" in part for part in parts] == [False] + [True] * (len(parts) - 1)
    assert [part.rstrip().endswith("n\n\\end{table}") for part in parts] == [False] * (len(parts) - 1) + [True]


@needs_latex
def test_a_long_table_is_one_table_on_two_pages(tmp_path: Path) -> None:
    long = Sheet(("a", "b"), tuple((Piece(f"row{i}"), Piece("1")) for i in range(50)), caption="All of them.")
    following = Sheet(("a",), ((Piece("x"),),), caption="Another.")
    read = compiled(tmp_path, latex.write(long), latex.write(following))
    assert re.findall(r"Table \d: .*", read) == ["Table 1: All of them.", "Table 1: (continued)", "Table 2: Another."]
    assert "Float too large" not in (tmp_path / "t.log").read_text()


@pytest.mark.parametrize("columns", [80, 100, 160])
def test_a_narrow_terminal_breaks_no_word(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    value = Piece("98.2", "[88.2, 99.2] ×3", "paper 93.32, +14.9", True, "†")
    heads = ("Training", "Method", *(f"PGD-{steps}" for steps in (1, 2, 5, 7, 10, 20, 40)))
    text = write_sheet(Sheet(heads, ((Piece("BPTT"), Piece("Vanilla"), *[value] * 7),), 2), "text")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert max(map(len, lines)) <= columns
    words = " ".join(lines).split()
    for word in ("*98.2", "[88.2,", "99.2]", "×3†", "paper", "93.32,", "+14.9"):
        assert words.count(word) == 7, (word, text)
    assert {*heads, "Vanilla"} <= {*words}


def test_text_has_what_stands_below_on_a_line_of_its_own() -> None:
    wide = Sheet(("name", "rate"), ((Piece("a"), Piece("50.0", "[1, 2]", "paper 40.0, +10.0", True, "†")),))
    first, second = write_sheet(wide, "text").splitlines()[-2:]
    assert first.split() == ["a", "*50.0", "[1,", "2]†"]
    assert second.strip() == "paper 40.0, +10.0"
