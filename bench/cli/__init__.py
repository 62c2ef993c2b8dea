"""The command line. Heavy imports happen inside the commands, so that --help is instant."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bench.cli import (
    audit,
    baseline,
    check,
    check_model,
    compare,
    curve,
    doctor,
    evidence,
    export,
    figure,
    leaderboard,
    list_,
    peers,
    perf,
    plan,
    restore,
    run,
    show,
    status,
    table,
    truth,
    tune,
    variance,
    worst,
)
from bench.errors import BenchError
from bench.runtime import share_cores

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143


class _Commands(TyperGroup):
    """Turns errors a user can act on into one line, and Ctrl-C into a promise."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:
            # The reader (head, less) has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_FAILED)
        except OSError as error:
            what = f"'{error.filename}': " if error.filename else ""
            print(f"error: {what}{error.strerror or error}", file=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(EXIT_FAILED)
        except BenchError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(EXIT_USAGE)
        except KeyboardInterrupt as error:
            how = {"Cancelled": "cancelled with bench cancel", "Terminated": "terminated"}
            print(
                f"\n{how.get(type(error).__name__, 'interrupted')}; all that was finished is kept. "
                "Continue with the same command.",
                file=sys.stderr,
            )
            sys.exit(EXIT_TERMINATED if type(error).__name__ == "Terminated" else EXIT_INTERRUPTED)


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


def _print_version(wanted: bool) -> None:
    if wanted:
        from bench import __version__

        print(f"bench {__version__}")
        raise typer.Exit


@app.callback()
def _bench(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None: ...


app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("tune")(tune.tune)
app.command("status")(status.status)
app.command("cancel")(status.cancel)
app.command("ls")(list_.list_)
app.command("show", cls=show.ShowCommand)(show.show)
app.command("table")(table.table)
app.command("check-model")(check_model.check_model)
app.command("audit")(audit.audit)
app.command("worst")(worst.worst)
app.command("compare")(compare.compare)
app.command("variance")(variance.variance)
app.command("curve")(curve.curve)
app.command("figure")(figure.figure)
app.command("export")(export.export)
app.command("import")(export.import_)
app.command("evidence")(evidence.evidence)
app.add_typer(leaderboard.leaderboard)
app.add_typer(baseline.baseline)
app.command("check")(check.check)
app.command("truth")(truth.truth)
app.command("peers")(peers.peers)
app.command("perf")(perf.perf)
app.command("restore")(restore.restore)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point of the `bench` command."""
    share_cores()
    app(prog_name="bench")
