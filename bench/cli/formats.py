"""Which format a command writes: the one that was named, or the one that the file's name ends in."""

from pathlib import Path

from bench.errors import BenchError

FORMATS = ("text", "md", "csv", "latex", "html", "json")
HELP = "text, md, csv, latex, html or json; by the file's ending if not given, or text."

_ENDINGS = {".md": "md", ".csv": "csv", ".tex": "latex", ".html": "html", ".json": "json"}


def chosen_format(named: str | None, output: Path | None, *, as_json: bool = False) -> str:
    """The format to write.

    Args:
        named: what `--format` says.
        output: the file to write, if any.
        as_json: whether `--json` was given, which wins.

    Raises:
        BenchError: an unknown format, or one that the file's ending contradicts.
    """
    named = "json" if as_json else named
    if named is not None and named not in FORMATS:
        raise BenchError(f"unknown format '{named}'; choose from {', '.join(FORMATS)}")
    ending = _ENDINGS.get(output.suffix.lower()) if output else None
    if named and ending and named != ending:
        raise BenchError(f"'{output}' ends as {ending}, but --format says {named}; leave one of the two to the other")
    return named or ending or "text"
