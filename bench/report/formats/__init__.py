"""How a `Sheet` looks as text, Markdown, LaTeX and HTML; one file each."""

from bench.errors import BenchError
from bench.report.formats import html, latex, markdown, text
from bench.report.sheet import Sheet

_WRITERS = {"text": text.write, "md": markdown.write, "latex": latex.write, "html": html.write}


def write_sheet(sheet: Sheet, form: str) -> str:
    """A table as `text`, `md`, `latex` (booktabs) or `html` (a fragment: one `figure` element).

    Raises:
        BenchError: another format.
    """
    if form not in _WRITERS:
        raise BenchError(f"unknown format '{form}'; choose from {', '.join(_WRITERS)}")
    return _WRITERS[form](sheet)
