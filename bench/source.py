"""What a built-in part says of itself, read from its source instead of by importing it.

The modules that hold the parts import torch, which takes longer than anything a list of names should.
Nothing here runs code, and only our own code is written so plainly that reading it is enough: a part of
somebody else's is loaded (`bench.report.listing`).
"""

import ast
import functools
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

_Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Card:
    """What a list says of a part.

    Attributes:
        summary: one line.
        parameters: what a user may set, with the default values.
        takes_steps: whether its name ends in a step count.
        origin: `file:line` of its code.
    """

    summary: str
    parameters: Mapping[str, Any]
    takes_steps: bool
    origin: str


def read_card(target: str) -> Card | None:
    """Read a part where it is defined.

    Args:
        target: `module:attribute`, naming a function, a dataclass whose fields are its parameters, or a constant
            whose call gives the function and the summary first (`Attack(run, summary, ...)`). The options of a
            dataset are its function's keyword-only arguments.

    Returns:
        None for what is written in another way; it must be imported to be known.
    """
    module, _, attribute = target.partition(":")
    path = _path_of(module)
    if path is None:
        return None
    top = _definitions(path)
    found = top.get(attribute)
    try:
        if isinstance(found, _Definition):
            parameters = _fields(found) if isinstance(found, ast.ClassDef) else _arguments(found)
            return Card(_first_line(found), parameters, False, _origin(path, found))
        if isinstance(found, ast.Call):
            code, summary = (_argument(found, at, names) for at, names in ((0, ("run", "load")), (1, ("summary",))))
            named = {keyword.arg: keyword.value for keyword in found.keywords}
            function = top[_name_of(code)]
            if ast.unparse(found.func) == "DatasetSource" and isinstance(function, ast.FunctionDef):
                defaults = _options(function)
            else:
                defaults = ast.literal_eval(named["defaults"]) if "defaults" in named else {}
            steps = bool(ast.literal_eval(named["takes_steps"])) if "takes_steps" in named else False
            return Card(str(ast.literal_eval(summary)), defaults, steps, _origin(path, function))
    except (ValueError, KeyError):
        return None
    return None


def _path_of(module: str) -> Path | None:
    """A module's file. Only the outermost package is looked up, since to look further is to import it."""
    outermost, *inner = module.split(".")
    spec = importlib.util.find_spec(outermost)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder, *inner)
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None


@functools.cache
def _definitions(path: Path) -> dict[str, ast.AST]:
    """The functions and classes of a file by name, and what is assigned to its constants."""
    found: dict[str, ast.AST] = {}
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, _Definition):
            found[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
    return found


def _argument(call: ast.Call, position: int, names: tuple[str, ...]) -> ast.expr:
    if position < len(call.args):
        return call.args[position]
    return next((keyword.value for keyword in call.keywords if keyword.arg in names), ast.Name(""))


def _name_of(code: ast.expr) -> str:
    """The function that an expression names, or makes a `partial` of."""
    if isinstance(code, ast.Call) and isinstance(code.func, ast.Name) and code.func.id == "partial":
        code = code.args[0]
    if not isinstance(code, ast.Name):
        raise ValueError(f"not a name: {ast.unparse(code)}")
    return code.id


def _first_line(node: _Definition) -> str:
    return (ast.get_docstring(node) or "").split("\n")[0]


def _origin(path: Path, node: ast.AST) -> str:
    if not isinstance(node, _Definition):
        raise ValueError("defined elsewhere")
    # As `inspect` counts: decorators belong to what they decorate.
    return f"{path}:{min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])}"


def _options(function: ast.FunctionDef) -> dict[str, Any]:
    given = function.args
    pairs = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return {argument.arg: _value(node) for argument, node in pairs if node}


def _value(node: ast.expr) -> Any:
    """A literal, or a fraction of literals, as budgets are written."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Fraction":
        return Fraction(*map(ast.literal_eval, node.args))
    return ast.literal_eval(node)


def _arguments(function: ast.FunctionDef) -> dict[str, Any]:
    given = function.args
    positional = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    defaults = [*given.defaults]
    own = dict(zip(positional[len(positional) - len(defaults) :], defaults, strict=True))
    return {name: _value(node) for name, node in own.items()} | _options(function)


def _fields(cls: ast.ClassDef) -> dict[str, Any]:
    return {
        node.target.id: ast.literal_eval(node.value)
        for node in cls.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.value is not None
        and not ast.unparse(node.annotation).startswith("ClassVar")
    }
