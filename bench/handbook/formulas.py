"""The formula of each part: one small file of Markdown with LaTeX, so that docstrings stay plain."""

from pathlib import Path

from bench.errors import BenchError

FOLDER = "formulas"


def formula_path(docs: Path, kind: str, name: str) -> Path:
    """Where the formula of a part is written: `docs/formulas/defenses/tgo.md`."""
    return docs / FOLDER / f"{kind}s" / f"{name}.md"


def formula_of(docs: Path, kind: str, name: str) -> str:
    """The formula of a part, as Markdown.

    Args:
        docs: the folder of the documentation.
        kind: defense, attack or gradient.
        name: as registered.

    Raises:
        BenchError: there is none, or it holds no formula.
    """
    path = formula_path(docs, kind, name)
    shown = path.relative_to(docs.parent)
    if not path.is_file():
        raise BenchError(f"{kind} '{name}' has no formula; write one between $$ and $$ into {shown}")
    text = path.read_text().strip()
    if "$$" not in text:
        raise BenchError(f"{shown} holds no formula; write it between $$ and $$")
    return text
