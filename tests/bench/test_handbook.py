"""What the code writes into the documentation: it is complete, it is right, and a new part appears by itself."""

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT
from typer.testing import CliRunner

from bench.audit.checks import CHECKS
from bench.cli import app
from bench.errors import BenchError
from bench.handbook.commands import command_page
from bench.handbook.cost import cost_of, polynomial
from bench.handbook.docstring import read_docstring
from bench.handbook.formulas import formula_of, formula_path
from bench.handbook.links import relinked, section, with_sections
from bench.handbook.mathml import mathml, with_mathml
from bench.handbook.parts import SHOWN, documented, part_pages
from bench.handbook.pictures import commands, draw
from bench.handbook.reference import PACKAGES, reference_pages
from bench.registry import ATTACKS, DEFENSES, KINDS, MODELS, Entry
from defenses import Defense, Part

DOCS = ROOT / "docs"
AUDIT = (DOCS / "audit.md").read_text()
BUILT_IN = [(kind, name) for kind in SHOWN for name in KINDS[kind].names() if KINDS[kind].entry(name).builtin]


def block(marker: str) -> str:
    """The fenced block of the page on the audit that follows `<!-- marker -->`."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", AUDIT, re.DOTALL)
    assert found, marker
    return found[1]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return part_pages(DOCS)


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_every_part_has_a_formula_that_can_be_drawn_and_a_source(kind: str, name: str) -> None:
    pytest.importorskip("latex2mathml")
    text = formula_of(DOCS, kind, name)
    displayed = re.findall(r"\$\$(.+?)\$\$", text, re.DOTALL)
    inline = re.findall(r"\$([^$\n]+)\$", re.sub(r"\$\$.+?\$\$", "", text, flags=re.DOTALL))
    assert displayed
    for latex in (*displayed, *inline):
        assert mathml(latex.strip(), True).count("<math") == 1
    said = documented(kind, KINDS[kind].entry(name))
    assert said.source, (
        f"the docstring of {kind} '{name}' needs a line 'Source: ...' (Source: none; ... if it has none)"
    )


def test_no_formula_is_of_nothing() -> None:
    written = {path.relative_to(DOCS / "formulas") for path in (DOCS / "formulas").rglob("*.*")}
    assert written == {formula_path(DOCS, *part).relative_to(DOCS / "formulas") for part in BUILT_IN}


def test_every_part_has_a_page_with_all_its_parameters_and_is_in_its_list(pages: dict[str, str]) -> None:
    for kind, name in BUILT_IN:
        page = pages[f"parts/{kind}s/{name}.md"]
        assert page.startswith(f"# {name}\n")
        assert f"]({name}.md)" in pages[f"parts/{kind}s/index.md"]
        for heading in ("Formula", "Parameters", "Source"):
            assert f"\n## {heading}\n" in page, (name, heading)
    for name in ATTACKS.names():
        for parameter in ATTACKS.get(name).defaults:
            assert f"| `{parameter}` |" in pages[f"parts/attacks/{name}.md"]


def test_a_page_says_what_its_part_costs_and_how_it_may_be_tuned(pages: dict[str, str]) -> None:
    assert "| passes for a training image | 1.4 (vanilla: 1) |" in pages["parts/defenses/tgo.md"]
    assert re.search(r"\| `lam_max` \| open \| 0\.05 to 2, by ratio \| final weight", pages["parts/defenses/mc.md"])
    assert "| `eps` | open | 1/255, 2/255, 4/255, 8/255 |" in pages["parts/defenses/rat.md"]
    for noisy in ("nlif", "stog", "poisson", "signed-rate", "sqe"):
        assert "| network | noisy" in pages[f"parts/defenses/{noisy}.md"], noisy
    for certain in ("dlif", "el", "hosnn", "fe"):
        assert "| network | deterministic" in pages[f"parts/defenses/{certain}.md"], certain
    assert "fills the slot `weights`" in pages["parts/defenses/rat.md"]
    assert "| forward passes | 9 K + 10 |" in pages["parts/attacks/mtpgd.md"]
    assert "| `alpha` | eps · 51/160 |" in pages["parts/attacks/pgd.md"]
    assert "| `without` | none | surrogates to leave out" in pages["parts/attacks/sweep.md"]


class Extra(Part):
    """Nothing more."""

    name = "extra"

    def extra_passes(self) -> float:
        return 0.5


def extra(weight: float = 0.25) -> Defense:
    """Does a half more.

    Source: none; a test.

    Args:
        weight: of nothing.
    """
    return Defense("extra", (Extra(),))


def test_a_new_defense_appears_by_itself_and_asks_for_its_formula(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(DEFENSES, "_entries", {"extra": Entry("extra", extra, True)})
    monkeypatch.setattr("bench.handbook.parts.SHOWN", ("defense",))
    mend = re.escape("defense 'extra' has no formula; write one between $$ and $$ into docs/formulas/defenses/extra.md")
    with pytest.raises(BenchError, match=mend):
        part_pages(tmp_path / "docs")
    path = formula_path(tmp_path / "docs", "defense", "extra")
    path.parent.mkdir(parents=True)
    path.write_text("no formula")
    with pytest.raises(BenchError, match="holds no formula"):
        part_pages(tmp_path / "docs")
    path.write_text("$$ x $$\n")
    written = part_pages(tmp_path / "docs")
    page = written["parts/defenses/extra.md"]
    assert "$$ x $$" in page
    assert "| `weight` | `0.25` | not tuned | of nothing. |" in page
    assert "| [`extra`](extra.md) | Does a half more. | 1.5 | `extra` |" in written["parts/defenses/index.md"]
    # A plug-in's parts are the plug-in's to describe.
    monkeypatch.setattr(DEFENSES, "_entries", {"extra": Entry("extra", extra, False)})
    assert list(part_pages(tmp_path / "docs")) == ["parts/defenses/index.md"]


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(-9, 9))
def test_costs_are_written_as_the_polynomials_that_they_are(square: int, linear: int, constant: int) -> None:
    values = tuple(square * k * k + linear * k + constant for k in range(1, 9))
    terms = [
        re.fullmatch(r"(-?)(\d*) ?(K²|K|)", term) for term in polynomial(values).replace(" - ", " + -").split(" + ")
    ]
    read = {term[3]: int(f"{term[1]}{term[2] or 1}") for term in terms if term}
    assert len(read) == len(terms)
    assert {"K²": 0, "K": 0, "": 0} | read == {"K²": square, "K": linear, "": constant}


def test_what_is_no_polynomial_is_not_written_as_one() -> None:
    assert polynomial((1, 2, 4, 8, 16, 32, 64, 128)) == "1, 2, 4, ... for K = 1, 2, 3, ..."
    assert cost_of(ATTACKS.get("sda")) == ("5 K² + 9 K", "K")
    assert cost_of(ATTACKS.get("autoattack")) == ("7,800", "1,900")


def test_a_docstring_is_taken_apart() -> None:
    said = read_docstring(
        "Sums up\nin two lines.\n\nBody [N, *]:\n- a list\n\n"
        "Source: somebody,\n2020. Where they differ:\n- here\n- there\nCost: much.\n\n"
        "Args:\n    a, b: both, over\n        two lines.\n    c: alone.\n\nRaises:\n    ValueError: never."
    )
    assert said.summary == "Sums up\nin two lines."
    assert said.body == "Body [N, *]:\n\n- a list"
    assert said.source == "somebody,\n2020. Where they differ:\n\n- here\n- there"
    assert said.parameters == {"a": "both, over two lines.", "b": "both, over two lines.", "c": "alone."}
    assert said.raises == "ValueError: never."


def test_links_lead_to_pages_or_become_text() -> None:
    text = (
        "[a](../README.md#what-the-numbers-mean) [b](x.md#y) [c](../results/perf/README.md) [`d`](../attacks/pgd.py) "
        "[e](https://example.org) [f](#here)\n```md\n[g](../attacks/pgd.py)\n```\n"
    )
    assert relinked(text, "docs/guide.md", "guide.md") == (
        "[a](numbers.md) [b](x.md#y) [c](measured/perf.md) `d` [e](https://example.org) [f](#here)\n"
        "```md\n[g](../attacks/pgd.py)\n```\n"
    )
    formulas = "[a](formulas/defenses) [b](formulas/attacks/pgd.md)"
    assert relinked(formulas, "docs/x.md", "x.md") == "[a](parts/defenses/index.md) [b](parts/attacks/pgd.md)"
    there = relinked(
        "![p](growth.png) [q](cells.csv) [r](../../docs/speed.md)", "results/perf/README.md", "measured/perf.md"
    )
    assert there == "![p](perf/growth.png) q [r](../speed.md)"


def test_a_section_ends_where_the_next_begins_and_not_in_code() -> None:
    text = "# A\n## B\none\n```sh\n# no heading\n```\n### C\ntwo\n## D\nthree\n"
    assert section(text, "B") == "one\n```sh\n# no heading\n```\n### C\ntwo\n"
    with pytest.raises(BenchError, match="no heading 'E'"):
        section(text, "E")
    assert with_sections("<!-- README.md: D -->\n", {"README.md": text}, "p.md") == "three\n\n"
    with pytest.raises(BenchError, match=r"asks for a section of LICENSE\.md"):
        with_sections("<!-- LICENSE.md: D -->", {"README.md": text}, "p.md")


def test_formulas_are_drawn_or_refused() -> None:
    pytest.importorskip("latex2mathml")
    drawn = with_mathml('<p><span class="arithmatex">\\(\\lvert x \\rvert &lt; 1\\)</span></p>')
    assert drawn.startswith('<p><math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">')
    assert "arithmatex" not in drawn
    for wrong in (r"\nosuch x", r"\begin{aligned}a&b\end{aligned}", r"\frac{1}"):
        with pytest.raises(BenchError, match="formula"):
            mathml(wrong, False)


def test_every_public_name_is_in_the_reference() -> None:
    written = reference_pages()
    for package in PACKAGES:
        for name in importlib.import_module(package).__all__:
            if not name.startswith("__"):
                assert re.search(rf"^::: [\w.]+\.{name}$", written[f"reference/{package}.md"], re.MULTILINE), name


def test_every_command_is_in_the_reference_with_its_options() -> None:
    page = command_page()
    for command in app.registered_commands:
        assert f"\n## bench {command.name}\n" in page
    assert "| `--eps` EPS |" in page
    assert "\n### bench leaderboard submit\n" in page


def test_the_page_on_the_audit_has_every_check_and_every_picture_has_its_command() -> None:
    assert not [check for check in CHECKS if f"| **{check}** |" not in AUDIT]
    assert f"each of {len(CHECKS)} checks" in AUDIT
    made = {name: script for name, script in commands(AUDIT) if Path(name).suffix}
    assert set(re.findall(r"\(pictures/audit/([^)]+)\)", AUDIT)) == set(made)
    assert {path.name for path in (DOCS / "pictures" / "audit").iterdir()} == set(made)
    for name, script in made.items():
        assert script.rstrip().endswith(f"-o {name}")


def test_pictures_are_made_by_the_commands_in_their_order(tmp_path: Path) -> None:
    page = (
        "<!-- file: in.py -->\n```python\n1\n```\n<!-- pictures: run -->\n```sh\ncat in.py > between\n```\n"
        "<!-- pictures: a.svg -->\n```sh\ncp between a.svg\n```\n"
    )
    (made,) = draw(page, tmp_path / "new")
    assert made.read_text() == "1\n"
    with pytest.raises(BenchError, match=r"commands for b\.svg make no such file"):
        draw("<!-- pictures: b.svg -->\n```sh\ntrue\n```\n", tmp_path)
    with pytest.raises(BenchError, match=r"commands for c\.svg fail: .*no-such-file"):
        draw("<!-- pictures: c.svg -->\n```sh\ncat no-such-file\n```\n", tmp_path)


def shown_commands() -> list[str]:
    """What the new guides run: `bench run` and `bench plan`, each as a plan."""
    found = []
    for page in ("audit.md", "pitfalls.md", "threat-models.md"):
        found += re.findall(r"^bench (?:run|plan) (.*)$", (DOCS / page).read_text(), re.MULTILINE)
    return found


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder with the plug-in of the page on the audit, which is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    Path("rounded.py").write_text(block("file: rounded.py"))


@pytest.mark.usefixtures("rounded")
def test_the_commands_of_the_guides_are_understood() -> None:
    found = shown_commands()
    assert len(found) >= 11
    for arguments in found:
        result = CliRunner().invoke(app, ["plan", *shlex.split(arguments), "--json"])
        assert result.exit_code == 0, (arguments, result.output)


@pytest.mark.usefixtures("rounded")
def test_the_fault_shown_is_found_as_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = set(re.findall(r"^ (\w[\w ]*?) {2,}[\d.]+%.*suspect", block("output: audit"), re.MULTILINE))
    assert shown <= set(CHECKS)
    monkeypatch.setattr("bench.audit.network.CHECKS", {name: CHECKS[name] for name in (*sorted(shown), "state")})
    small = ["-n", "48", "--epochs", "6", "--threads", "1", "--json"]
    result = CliRunner().invoke(app, [*shlex.split(block("command: audit"))[1:], *small])
    assert result.exit_code == 0, result.output
    (audit,) = json.loads(result.stdout)["audits"]
    alarmed = {finding["check"] for finding in audit["findings"] if finding["verdict"] == "suspect"}
    # What is left where every image is in reach depends on the training, which is shorter here.
    assert alarmed | {"unbounded"} == shown
