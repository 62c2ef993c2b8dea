"""The pages of the public names of each package, for mkdocstrings to fill."""

import importlib
import inspect

PACKAGES = ("bench", "attacks", "defenses", "models", "events")


def reference_pages() -> dict[str, str]:
    """A page for each package, as Markdown by its path below the site's root: what it is for, and its public names."""
    return {f"reference/{package}.md": _page(package) for package in PACKAGES}


def _page(package: str) -> str:
    module = importlib.import_module(package)
    names = sorted((name for name in module.__all__ if not name.startswith("__")), key=str.lower)
    said = inspect.getdoc(module) or ""
    asked = "\n".join(f"::: {_home(package, name)}\n" for name in names)
    return f"# {package}\n\n{said} To be imported from `{package}`.\n\n{asked}"


def _home(package: str, name: str) -> str:
    """Where a public name is defined: a package that imports late gives its tools no other clue."""
    found = getattr(importlib.import_module(package), name)
    module = getattr(found, "__module__", package)
    return f"{module if module.startswith(PACKAGES) else package}.{name}"
