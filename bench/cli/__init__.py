"""The command line. Heavy imports happen inside the commands, so that --help is instant."""

import sys

import typer

from bench.cli import list_, plan, run, show, table
from bench.errors import BenchError

app = typer.Typer(
    name="bench",
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

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def main() -> None:
    """Entry point: errors a user can act on become one line and exit status 2, Ctrl-C becomes 130."""
    try:
        app()
    except BenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except KeyboardInterrupt:
        print("\ninterrupted; everything finished so far is kept. Continue with the same command.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_FAILED)
