"""Self-tests as lines of at most 80 columns, and for programs."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.doctor.finding import Finding

WIDTH = 80
_NAME = 18


_NOTES = {
    "attacks": "On a linear network: how far towards the worst point of the ball, in linf and in\n"
    "l2; forwards+backwards an image. More: ball, repeats, model, inputs, generators,\n"
    "errors, neighbours."
}


def heading(group: str) -> str:
    """The lines above a group."""
    return "\n".join(filter(None, [f"\n{group}", _NOTES.get(group)]))


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """One thing's findings: one line if all is well, otherwise a line for each failure."""
    name = findings[0].name
    failed = [finding for finding in findings if finding.status == "failed"]
    if failed:
        return [_line(name, "FAILED", f"{finding.check}: {finding.detail}") for finding in failed]
    passed = [finding for finding in findings if finding.status == "ok" and finding.check != "loads"]
    if not passed:
        return [_line(name, "-", "; ".join(f.detail for f in findings if f.status == "skipped") or "loads")]
    measured = [f"{finding.check.removeprefix('optimum ')} {finding.detail}" for finding in passed if finding.detail]
    if not measured:
        return [_line(name, "ok", ", ".join(finding.check for finding in passed))]
    return [_line(name, "ok", f"{', '.join(measured)}, {len(passed) - len(measured)} more")]


def _line(name: str, verdict: str, text: str) -> str:
    start = f"  {name:{_NAME}}{verdict:8}"
    wrapped = textwrap.wrap(" ".join(text.split()), WIDTH - len(start), break_on_hyphens=False) or [""]
    return f"\n{' ' * len(start)}".join([start + wrapped[0], *wrapped[1:]]).rstrip()


def about_lines(about: Mapping[str, Any]) -> list[str]:
    """Versions and devices."""
    return ["\nversions and devices", *(_line(key, "", str(value)) for key, value in about.items())]


def verdict(findings: Sequence[Finding], seconds: float) -> str:
    """The last line."""
    failed = sum(finding.status == "failed" for finding in findings)
    skipped = sum(finding.status == "skipped" for finding in findings)
    what = f"{failed} of {len(findings)} checks FAILED" if failed else f"all {len(findings) - skipped} checks passed"
    return f"\n{what}, {skipped} do not apply; {seconds:.0f} s"


def doctor_json(findings: Sequence[Finding], about: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Everything for programs."""
    return {
        "ok": not any(finding.status == "failed" for finding in findings),
        "seconds": round(seconds, 1),
        "findings": [asdict(finding) for finding in findings],
        "about": dict(about),
    }
