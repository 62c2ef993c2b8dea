"""The house rules that a reader relies on."""

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import ROOT, environment

PACKAGES = ("events", "models", "attacks", "defenses", "bench")


def imports(path: Path) -> set[str]:
    """Top-level packages that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    later = set(PACKAGES[PACKAGES.index(package) + 1 :])
    files = list((ROOT / package).rglob("*.py"))
    assert files
    assert not {str(path): wrong for path in files if (wrong := imports(path) & later)}


def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert "bench/store/migrations/versions/0001_initial.py" in names
    assert "bench/data/digits.py" in names


@pytest.mark.parametrize("module", ["bench.cli", "bench.registry", "bench"])
def test_the_command_line_starts_without_torch(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'art', 'pandas', 'sqlalchemy') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_function_and_class_has_a_docstring(package: str) -> None:
    missing = []
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and "migrations" not in path.parts and not ast.get_docstring(node):
                missing.append(f"{path.name}:{node.name}")
    assert not missing
