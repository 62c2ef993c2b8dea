"""A check as JUnit XML, which every CI system can show."""

from xml.etree import ElementTree

from bench.gate.check import NOT_COMPARABLE, NOT_MEASURED, OK, REGRESSION, Check, Line


def junit_xml(check: Check) -> bytes:
    """One test case for each comparison: a regression is a failure, what could not be compared an error."""
    counts = {
        "tests": len(check.lines),
        "failures": sum(line.status == REGRESSION for line in check.lines),
        "errors": sum(line.status in (NOT_COMPARABLE, NOT_MEASURED) for line in check.lines),
    }
    suite = ElementTree.Element("testsuite", {"name": "bench check", **{k: str(v) for k, v in counts.items()}})
    for line in check.lines:
        names = {"classname": _clean(line.network), "name": _clean(line.attack)}
        case = ElementTree.SubElement(suite, "testcase", names)
        if line.status != OK:
            kind = "failure" if line.status == REGRESSION else "error"
            message = _clean(_message(line))
            ElementTree.SubElement(case, kind, {"message": message}).text = message
        elif line.warning:
            ElementTree.SubElement(case, "system-out").text = _clean(line.warning)
    if not check.lines:
        # A suite without a test case is shown as a success by some systems.
        suite.set("tests", "1")
        suite.set("errors", "1")
        case = ElementTree.SubElement(suite, "testcase", {"classname": "bench check", "name": "baseline"})
        ElementTree.SubElement(case, "error", {"message": check.headline}).text = check.headline
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written + b"\n"


def _message(line: Line) -> str:
    if line.paired is None:
        return line.says
    paired = line.paired
    return (
        f"{line.says}: {100 * paired.second.value:.1f}% -> {100 * paired.first.value:.1f}% on {paired.n} images, "
        f"lost {paired.only_second}, gained {paired.only_first}, adjusted p = {line.p:.2g}"
        + (f", {100 * (line.moved or 0.0):.1f}% of the margins moved" if line.says == "moved" else "")
        + (f"; {line.warning}" if line.warning else "")
    )


def _clean(text: str) -> str:
    """Without the control characters that XML forbids."""
    return "".join(letter if letter >= " " or letter in "\t\n" else "?" for letter in text)
