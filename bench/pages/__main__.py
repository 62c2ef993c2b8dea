"""`python -m bench.pages`: write the pages of results/ from the outcomes beside them, or check them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.errors import BenchError

_ROOT = Path("results")


def pages(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Folders, or names of folders in results/; all pages if left out."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; say where a page is not what its outcomes make, and exit 1.")
    ] = False,
) -> None:
    """Write every part of a page that a command makes, and the files beside it.

    The outcomes in a page's folder (*.parquet) go into an empty store; the commands that its Markdown files name run
    on it. Where a command fails, nothing of the page is written.

    Examples:

      python -m bench.pages

      python -m bench.pages digits-defenses --check
    """
    from bench.pages.make import differences, is_page, make_page, write_page

    folders = [_folder(name) for name in names or ()] or sorted(path for path in _ROOT.glob("*/") if is_page(path))
    if not folders:
        raise BenchError("there is no page in results/ here; name folders")
    differing = 0
    for folder in folders:
        page = make_page(folder)
        if check:
            found = differences(page)
            print("\n".join(found) if found else f"{folder}: is what its outcomes make")
            differing += len(found)
            continue
        changed = write_page(page)
        print("\n".join(f"wrote {path}" for path in changed) if changed else f"{folder}: nothing to change")
    if differing:
        raise typer.Exit(1)


def _folder(name: str) -> Path:
    folder = next((path for path in (Path(name), _ROOT / name) if path.is_dir()), None)
    if folder is None:
        raise BenchError(f"there is no folder '{name}', and none of that name in results/")
    return folder


if __name__ == "__main__":
    try:
        typer.run(pages)
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
