"""What audits found, and how well the audit itself does on networks whose faults are known."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attacks.threat import format_eps
from bench.audit.finding import NOTE, OK
from bench.report.text import duration, emit, make_console, make_table, percent

if TYPE_CHECKING:
    from bench.audit.calibrate import Tried
    from bench.audit.run import Audited, AuditReport


def print_audits(report: "AuditReport", store: str) -> None:
    """One table for each network."""
    console = make_console()
    for audited in report.audits:
        row = audited.row
        took = "from the store" if audited.stored else duration(row.seconds)
        table = make_table(f"{_named(audited)}, {audited.spec.n} images ({took})")
        table.add_column("check", no_wrap=True)
        for name in ("value", "limit"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        table.add_column("what it means", overflow="fold")
        for finding in row.findings:
            table.add_row(finding.check, _share(finding.value), _share(finding.limit), finding.verdict, finding.says)
        emit(console, table)
        doubts = [finding.check for finding in row.findings if finding.verdict not in (OK, NOTE)]
        console.print(f"{row.verdict}" + (f": {', '.join(doubts)}" if doubts else ": nothing speaks against it"))
        console.print()
    if report.audits:
        console.print(
            "value: a share of the images, or a difference of accuracies; doubted above the limit, a difference only "
            "where an exact McNemar test gives p < 0.01. An audit finds what casts doubt; it proves nothing robust."
        )
        console.print(f"Stored in {store}")


def audits_json(report: "AuditReport", store: str) -> dict[str, Any]:
    """Audits for programs."""
    return {
        "store": store,
        "failures": report.failures,
        "audits": [
            {
                "key": audited.row.key,
                "dataset": audited.job.spec.dataset,
                "model": audited.spec.model.name,
                "defense": audited.job.spec.defense_name,
                "seed": audited.job.spec.seed,
                "weights": audited.spec.weights,
                "norm": audited.spec.norm,
                "eps": str(audited.spec.eps),
                "n": audited.spec.n,
                "verdict": audited.row.verdict,
                "stored": audited.stored,
                "seconds": audited.row.seconds,
                "findings": [finding.as_json() for finding in audited.row.findings],
            }
            for audited in report.audits
        ],
    }


def print_calibration(results: Sequence["Tried"], seeds: Sequence[int], n: int) -> None:
    """Which faults the audit caught, and how often it doubted sound networks."""
    from bench.audit.calibrate import false_alarms

    console = make_console()
    table = make_table(f"networks with a known fault, seeds {seeds[0]} to {seeds[-1]}, {n} images")
    table.add_column("fault", no_wrap=True)
    table.add_column("caught", justify="right", no_wrap=True)
    table.add_column("%", justify="right", no_wrap=True)
    table.add_column("alarms by check (seeds)", overflow="fold")
    sound = make_table("sound networks")
    sound.add_column("network", no_wrap=True)
    sound.add_column("passed", justify="right", no_wrap=True)
    sound.add_column("%", justify="right", no_wrap=True)
    sound.add_column("false alarms by check (seeds)", overflow="fold")
    for result in results:
        into = table if result.fixture.caught_by else sound
        alarms = ", ".join(
            f"{'*' if check in result.fixture.caught_by else ''}{check} {count}"
            for check, count in result.alarms.items()
        )
        into.add_row(
            result.fixture.name.removeprefix("sound: "),
            f"{result.meant.hits:.0f} / {result.meant.n}",
            percent(result.meant),
            alarms or "none",
        )
    emit(console, table)
    console.print("* a check that is meant for the fault; caught: seeds in which one of them alarmed.\n")
    emit(console, sound)
    rate = false_alarms(results)
    console.print(
        f"False alarms: {rate.hits:.0f} of {rate.n} checks of sound networks, {percent(rate)} %. "
        "Percent with 95% Wilson interval."
    )


def calibration_json(results: Sequence["Tried"], seeds: Sequence[int], n: int) -> dict[str, Any]:
    """A calibration for programs; rates are shares in [0, 1]."""
    from bench.audit.calibrate import false_alarms

    return {
        "seeds": list(seeds),
        "n": n,
        "fixtures": [
            {
                "name": result.fixture.name,
                "sound": not result.fixture.caught_by,
                "meant_for_it": list(result.fixture.caught_by),
                "met": result.meant._asdict(),
                "alarms": result.alarms,
            }
            for result in results
        ],
        "false_alarms": false_alarms(results)._asdict(),
    }


def _named(audited: "Audited") -> str:
    spec, job = audited.spec, audited.job.spec
    eps = format_eps(spec.eps)
    return f"{job.defense_name} (seed {job.seed}), {job.model.name} on {job.dataset}, {spec.norm} eps {eps}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"
