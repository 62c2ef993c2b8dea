"""What was found of a network, as lines and for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.audit.finding import Finding
from bench.modelcheck.run import is_fault
from bench.report.text import emit, make_console, make_table


def print_checks(title: str, findings: Sequence[Finding]) -> None:
    """One row for each check, and what comes of it."""
    console = make_console()
    table = make_table(title)
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("what it means", overflow="fold")
    for finding in findings:
        table.add_row(finding.check, finding.verdict, finding.says)
    emit(console, table)
    faults = [finding.check for finding in findings if is_fault(finding)]
    console.print(f"faults: {', '.join(faults)}" if faults else "no fault found; next: bench run, bench audit")


def checks_json(about: Mapping[str, Any], findings: Sequence[Finding]) -> dict[str, Any]:
    """The same for programs."""
    return {
        **about,
        "faults": [finding.check for finding in findings if is_fault(finding)],
        "findings": [finding.as_json() for finding in findings],
    }
