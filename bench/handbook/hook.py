"""What mkdocs calls while it builds the site; `mkdocs.yml` names this file."""

import functools
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from bench.errors import BenchError
from bench.handbook.commands import command_page
from bench.handbook.links import PICTURES, page_of, relinked, with_sections
from bench.handbook.mathml import with_mathml
from bench.handbook.parts import part_pages
from bench.handbook.reference import reference_pages

_INCLUDED = ("README.md", "CONTRIBUTING.md")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of each folder that the navigation names (`parts/defenses/`) into it."""
    # `mkdocs serve` comes here again whenever something was changed.
    generated.cache_clear()
    written = generated(_root(config))
    config.nav = _opened(config.nav or [], [path for path in written if path.endswith(".md")])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that the code writes."""
    for path, content in generated(_root(config)).items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Resolve what a page takes from README.md, and its links."""
    root, path = _root(config), page.file.src_uri
    if page.file.generated_by is not None:
        return markdown
    texts = {name: (root / name).read_text() for name in _INCLUDED}
    try:
        return with_sections(relinked(markdown, f"docs/{path}", path), texts, path)
    except BenchError as error:
        raise PluginError(str(error)) from error


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw the formulas."""
    try:
        return with_mathml(html)
    except BenchError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load what makes the search work in a folder, before the theme's own scripts want it."""
    script = f'<script src="{get_relative_url("folder.js", page.url)}"></script>'
    return output.replace('<script id="__config"', f'{script}<script id="__config"')


@event_priority(-100)
def on_post_build(config: MkDocsConfig) -> None:
    """Put the search index into a script too, which is all that a page may load that is read from a folder."""
    index = Path(config.site_dir, "search", "search_index.json")
    index.with_suffix(".js").write_text(f"var __index = {index.read_text()}")


@functools.cache
def generated(root: Path) -> dict[str, str | bytes]:
    """Every page and picture that no file of docs/ is: by its path below the site's root.

    Args:
        root: the repository.

    Raises:
        PluginError: something that a page needs is missing.
    """
    try:
        pages: dict[str, str | bytes] = {**part_pages(root / "docs"), **reference_pages()}
        pages["reference/commands.md"] = command_page()
    except BenchError as error:
        raise PluginError(str(error)) from error
    results = root / "results"
    for path in (root / "CONTRIBUTING.md", results / "README.md", *sorted(results.glob("*/*.md"))):
        source = path.relative_to(root).as_posix()
        page = page_of(source) or source
        pages[page] = relinked(path.read_text(), source, page)
    for picture in sorted(path for path in results.glob("*/*") if path.suffix in PICTURES):
        pages[f"measured/{picture.parent.name}/{picture.name}"] = picture.read_bytes()
    return pages


def _opened(nav: list[Any], written: list[str]) -> list[Any]:
    """The navigation with the written pages in place of the folders that it names."""
    found: list[Any] = []
    for item in nav:
        if isinstance(item, dict):
            ((title, inner),) = item.items()
            if isinstance(inner, list):
                item = {title: _opened(inner, written)}
            elif inner.endswith("/"):
                item = {title: [{_name(path): path} for path in written if path.startswith(inner)]}
        found.append(item)
    return found


def _name(path: str) -> str:
    stem = Path(path).stem
    return "All" if stem == "index" else stem


def _root(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent
