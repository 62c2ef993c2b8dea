"""Models that the user names by where their builder is: `mymodule:build`, or `path/file.py:build`."""

import ast
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.errors import BenchError, describe
from bench.registry import Entry

LIBRARIES = ("spikingjelly", "snntorch")
"""Other libraries of neurons, whose release is part of what a network computes."""
OURS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class UserModel(Entry):
    """A builder by its place, which its name says."""

    @property
    def _parts(self) -> tuple[str, str]:
        place, _, attribute = self.name.rpartition(":")
        return place, attribute

    def load(self) -> Any:
        """The builder.

        Raises:
            BenchError: there is no such file, module or function, or it fails while it is imported.
        """
        place, attribute = self._parts
        path = self.path()
        try:
            if place not in sys.modules:
                self._check_names(path)
            with quiet(), _importing():
                module = _from_file(path) if place.endswith(".py") else importlib.import_module(place)
        except BenchError:
            raise
        except (Exception, SystemExit) as error:
            raise BenchError(
                f"model '{self.name}': '{path}' failed to load: {describe(error)}{_mend(error, path, attribute)}"
            ) from error
        found: Any = module
        for name in attribute.split("."):
            found = getattr(found, name, None)
        if _is_network(found):
            raise BenchError(
                f"model '{self.name}': '{attribute}' in '{path}' is a network, not a function that builds one; write "
                "one that returns it"
            )
        if not callable(found):
            there = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
            own = [name for name in there if getattr(getattr(module, name), "__module__", "") == module.__name__]
            raise BenchError(
                f"model '{self.name}': '{path}' has no function '{attribute}'"
                + (f"; it has {', '.join(own[:6])}" if own else "")
            )
        return found

    @contextmanager
    def building(self) -> Iterator[None]:
        """Inside the block the builder may be called: what it imports only then is found as when it was loaded."""
        place, _ = self._parts
        with _reaching(self.path()) if place.endswith(".py") else _importing():
            yield

    def _check_names(self, path: Path) -> None:
        """Refuse a file whose imports would find other files than those that are in its fingerprint: Python has one
        module of a name, and `models` is ours.

        Raises:
            BenchError: one of the user's own files has the name of a module that is loaded.
        """
        place, _ = self._parts
        root = _root(path, place)
        for file in _closure(path, root)[0]:
            parts = (root / file).with_suffix("").relative_to(root).parts
            if place.endswith(".py") and root / file == path.resolve():
                continue
            for end in range(1, len(parts) + (parts[-1] != "__init__")):
                name = ".".join(parts[:end])
                held = sys.modules.get(name)
                if held is not None and root.joinpath(*parts[:end]) not in _places(held):
                    raise BenchError(
                        f"model '{self.name}' imports '{root / file}', but the module '{name}' is "
                        f"{_shown(held)} here, and Python keeps one of a name: rename yours"
                    )

    def origin(self) -> str:
        """Where the code lives."""
        return f"{self.path()}"

    def fingerprint(self) -> str:
        """Identifies the code: the file, the user's own files that it imports, and the release of each library of
        neurons that these import. Nothing is run.

        Raises:
            BenchError: a library is not installed, or a file cannot be read.
        """
        path = self.path()
        sources, libraries = _closure(path, _root(path, self._parts[0]))
        digest = hashlib.sha256()
        for file, source in sources.items():
            digest.update(f"{file}\0{len(source)}\0".encode() + source)
        parts = [digest.hexdigest()[:16]]
        for library in libraries:
            try:
                parts.append(f"{library} {version(library)}")
            except PackageNotFoundError:
                raise BenchError(
                    f"model '{self.name}' needs {library}, which is not installed: pip install {library}"
                ) from None
        return " ".join(parts)

    def path(self) -> Path:
        """The file that the builder is in.

        Raises:
            BenchError: there is none, or it belongs to Python itself.
        """
        place, attribute = self._parts
        if not place or not attribute or not all(part.isidentifier() for part in attribute.split(".")):
            raise BenchError(f"model '{self.name}' must be written module:function or path/file.py:function")
        if place.endswith(".py"):
            path = Path(place)
            if not path.is_file():
                raise BenchError(f"model '{self.name}': there is no file '{place}'")
            return path
        try:
            with quiet(), _importing():
                spec = importlib.util.find_spec(place)
        except (ImportError, ValueError, AttributeError):
            spec = None
        except (Exception, SystemExit) as error:
            # Looking for a submodule imports its packages, which may be anyone's code.
            raise BenchError(f"model '{self.name}': '{place}' failed to load: {describe(error)}") from error
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            raise BenchError(
                f"model '{self.name}': there is no module '{place}' here or on Python's path; give its file, "
                f"{place.replace('.', '/')}.py:{attribute}"
            )
        path = Path(spec.origin)
        if path.is_relative_to(sysconfig.get_paths()["stdlib"]) and "site-packages" not in path.parts:
            raise BenchError(f"model '{self.name}': '{place}' is a module of Python itself, not of a model")
        return path


def user_model(name: str) -> UserModel | None:
    """The model of a name that says where its builder is; None for a plain name.

    Raises:
        BenchError: the name is a file without a function in it.
    """
    if ":" not in name and name.endswith(".py"):
        raise BenchError(f"model '{name}' is a file: say which function in it builds the network, {name}:build")
    return UserModel(name, name, False) if ":" in name else None


@contextmanager
def quiet() -> Iterator[None]:
    """Inside the block what is printed goes to stderr: what a user's code says is not what a command answers."""
    with redirect_stdout(sys.stderr):
        yield


def _mend(error: BaseException, path: Path, attribute: str) -> str:
    """What to do about a file that cannot be imported, where that is known."""
    if isinstance(error, SystemExit):
        return "; what is for the file as a program belongs under: if __name__ == '__main__':"
    if isinstance(error, ImportError) and "relative import" in str(error):
        place = ".".join(path.resolve().with_suffix("").parts[-2:])
        return f"; a file of a package goes by its module's name, from the folder above: {place}:{attribute}"
    return ""


def _is_network(found: Any) -> bool:
    """Whether it is a torch module, which is callable but builds nothing; torch is asked only if it is there."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(found, torch.nn.Module)


@contextmanager
def _importing() -> Iterator[None]:
    """Inside the block the current folder is on Python's path, as it is for `python -m`."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)


def _from_file(path: Path) -> Any:
    """The module of a file, run once; its folder is on Python's path while it runs."""
    name = f"bench_model_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _reaching(path):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _reaching(path: Path) -> Iterator[None]:
    """Inside the block the folder of a file is on Python's path, as it is for `python path`."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _places(module: ModuleType) -> set[Path]:
    """Where a loaded module is: its file without ending, or the folders of a package."""
    folders = {Path(folder).resolve() for folder in getattr(module, "__path__", ())}
    file = getattr(module, "__file__", None)
    return folders if folders or not file else {Path(file).resolve().with_suffix("")}


def _shown(module: ModuleType) -> str:
    return f"'{module.__file__}'" if getattr(module, "__file__", None) else "another"


def _root(path: Path, place: str) -> Path:
    """The folder that the file's imports are looked for in."""
    up = 0 if place.endswith(".py") else place.count(".") + (path.name == "__init__.py")
    return path.resolve().parents[up]


def _closure(path: Path, root: Path) -> tuple[dict[str, bytes], list[str]]:
    """Sources of a file and of those below `root` that it imports, by their paths there; libraries they import."""
    installed = "site-packages" in root.parts
    found: dict[Path, bytes] = {}
    libraries: set[str] = set()
    waiting = [path.resolve()]
    first = path.resolve().relative_to(root).parts[0]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        try:
            found[file] = file.read_bytes()
            names = list(_imported(ast.parse(found[file]), file, root))
        except (OSError, SyntaxError, ValueError) as error:
            raise BenchError(f"'{file}' cannot be read as Python: {describe(error)}") from error
        for name in names:
            top = name.partition(".")[0]
            if top in LIBRARIES:
                libraries.add(top)
            elif (not installed or top == first) and not (root == OURS and (root / top / "__init__.py").is_file()):
                # Our own packages carry version numbers.
                waiting += _files(root, name)
    return {str(file.relative_to(root)): found[file] for file in sorted(found)}, sorted(libraries)


def _imported(tree: ast.Module, file: Path, root: Path) -> Iterator[str]:
    """Dotted names that a source imports, also inside functions, as seen from `root`."""
    package = ".".join(file.relative_to(root).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if package else []
                base = ".".join([*above, *([base] if base else [])])
            if base:
                yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def _files(root: Path, name: str) -> list[Path]:
    """The files below `root` that importing a dotted name runs."""
    found = []
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:end])
        found += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()]
    return found
