"""The page of the command line: every command with its options, as `--help` says."""

import re
from typing import Any

import typer


def command_page() -> str:
    """Every command, as Markdown."""
    from bench.cli import app

    group: Any = typer.main.get_command(app)
    told = [_command(f"bench {name}", command) for name, command in sorted(group.commands.items())]
    return f"# The command line\n\n{group.help}\n\n" + "\n".join(told)


def _command(name: str, command: Any) -> str:
    if hasattr(command, "commands"):
        inner = [_command(f"{name} {below}", each) for below, each in sorted(command.commands.items())]
        return f"## {name}\n\n{_text(command.help)}\n\n" + "\n".join(inner)
    level = "###" if name.count(" ") > 1 else "##"
    shown = [each for each in command.params if not getattr(each, "hidden", False) and each.name != "help"]
    rows = [_option(each) for each in shown if getattr(each, "opts", None) and each.param_type_name == "option"]
    arguments = " ".join(
        (each.metavar or (each.name or "").upper())
        if each.required
        else f"[{each.metavar or (each.name or '').upper()}]"
        for each in shown
        if each.param_type_name == "argument"
    )
    table = "| option | meaning |\n| --- | --- |\n" + "".join(rows) if rows else ""
    return f"{level} {name}\n\n```sh\n{f'{name} {arguments}'.strip()}\n```\n\n{_text(command.help)}\n\n{table}"


def _option(option: Any) -> str:
    written = ", ".join(f"`{each}`" for each in (*option.opts, *option.secondary_opts))
    if option.metavar:
        written += f" {option.metavar}"
    said = " ".join((option.help or "").split()).replace("|", "\\|")
    return f"| {written} | {said} |\n"


def _text(text: str | None) -> str:
    """Help as Markdown: paragraphs that are commands are examples, together in one block."""
    told: list[str] = []
    examples: list[str] = []
    for paragraph in [*re.split(r"\n\s*\n", (text or "").replace("\b", "").strip()), ""]:
        if paragraph.lstrip().startswith("bench "):
            examples.append(paragraph.strip())
            continue
        if examples:
            told.append("```sh\n" + "\n".join(examples) + "\n```")
            examples = []
        told.append(paragraph.strip())
    return "\n\n".join(told).strip()
