"""The command line. Heavy imports happen inside the commands, so that --help is instant."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from bench.cli import list_, plan, run, show, table
from bench.errors import BenchError
from bench.runtime import share_cores

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


class _Commands(TyperGroup):
    """Turns errors a user can act on into one line, and Ctrl-C into a promise."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BenchError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(EXIT_USAGE)
        except KeyboardInterrupt:
            print("\ninterrupted; all that was finished is kept. Continue with the same command.", file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)


app = typer.Typer(
    name="bench",
    cls=_Commands,
    help="How robust is a spiking neural network, really? Train defenses, attack them, keep every outcome.",
    epilog="Start with: bench run --defense tgo --attack pgd40",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("ls")(list_.list_)
app.command("show")(show.show)
app.command("table")(table.table)


def main() -> None:
    """Entry point of the `bench` command."""
    share_cores()
    app(prog_name="bench")
