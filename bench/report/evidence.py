"""Evidence as tables of at most 80 columns, and for programs."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from bench.evidence.collect import Evidence
from bench.evidence.flips import FlipEvidence
from bench.evidence.jacobian import Bound, JacobianEvidence
from bench.evidence.landscape import Landscape, Plane
from bench.evidence.numbers import Spread
from bench.report.text import counted, emit, make_console, make_table

WIDTH = 80


def print_evidence(evidence: Evidence, title: str) -> None:
    """All tables, each with the sentence that says how to read it."""
    console = make_console()
    console.print(title, soft_wrap=True)
    for part in tables(evidence):
        if isinstance(part, str):
            console.print(part, width=WIDTH)
        else:
            emit(console, part)


def evidence_json(evidence: Evidence, header: Mapping[str, Any]) -> dict[str, Any]:
    """Evidence for programs: shares in [0, 1]; None where there is no number."""
    return {**header, **evidence.to_json()}


def tables(evidence: Evidence) -> Iterator[Table | str]:
    """The report's parts in order."""
    yield _inputs(evidence)
    yield _layers(evidence)
    yield (
        f"near: |V - threshold| < {evidence.delta:g}, before noise. no slope: surrogate exactly 0. no gradient: the "
        "loss's gradient in the neuron's input current exactly 0. All in % of neurons."
    )
    yield _jacobian(evidence.jacobian)
    yield (
        "change: the largest of the perturbations tried. Eq. 10 as printed is eps^2 ||J||_2^2; for linf, with the "
        "operator norm that belongs to it. violated: images on which a perturbation changed the logits by more. J is "
        "the surrogate's, so neither is a bound by proof."
    )
    for flips in evidence.flips:
        yield _flips(flips)
    yield "Theorem 1 is given the root mean square of the measured change of each layer's potentials as its sigma."
    yield _lines(evidence.landscape)
    yield (
        f"A gradient step of eps raises the loss of {_percent(evidence.landscape.ascends)}% of the images; "
        f"noise of that size beats it on {_percent(evidence.landscape.noise_wins)}%."
    )
    for plane in evidence.landscape.planes:
        yield _plane(plane)
    if evidence.landscape.planes:
        yield "Down: steps along the gradient. Across: along a random direction orthogonal to it."


def _inputs(evidence: Evidence) -> Table:
    table = make_table(f"Input gradient of {counted(evidence.n, 'image')}, {counted(evidence.draws, 'draw')}")
    for name in ("loss", "zero entries %", "all-zero images %", "Hoyer", "l2 norm, median"):
        table.add_column(name, justify="left" if name == "loss" else "right")
    for found in evidence.inputs:
        shares = (_percent(found.zero_share), _percent(found.zero_images))
        table.add_row(found.loss, *shares, _number(found.hoyer.mean), _number(found.norm.median))
    return table


def _layers(evidence: Evidence) -> Table:
    table = make_table("Spiking layers by time step")
    table.add_column("layer", overflow="fold", max_width=24)
    for name in ("silent", "step", "near", "fire", "no slope", "no gradient"):
        table.add_column(name, justify="right")
    gradients = {layer.name: layer for layer in evidence.gradients}
    for layer in evidence.membranes:
        gradient = gradients[layer.name]
        rows = zip(layer.near, layer.rate, gradient.zero_slope, gradient.zero_gradient, strict=True)
        for step, shares in enumerate(rows, 1):
            first = (layer.name, _percent(layer.silent)) if step == 1 else ("", "")
            table.add_row(*first, str(step), *map(_percent, shares))
    return table


def _jacobian(found: JacobianEvidence) -> Table:
    table = make_table(f"Jacobian of the logits and their change, {found.norm} eps {found.eps:.4g}")
    table.add_column("")
    for name in ("median", "mean", "max", "bound/change", "violated %"):
        table.add_column(name, justify="right")
    for label, values in (
        ("||J||_2", found.spectral),
        ("||J||_F", found.frobenius),
        ("change, squared", found.measured),
    ):
        table.add_row(label, *_three(values), "", "")
    readings: dict[str, Bound] = {"Eq. 10 as printed": found.printed}
    if found.norm != "l2":
        readings[f"Eq. 10 for {found.norm}"] = found.corrected
    for label, bound in readings.items():
        table.add_row(label, *_three(bound.value), _number(bound.ratio.median), _percent(bound.violated))
    return table


def _flips(found: FlipEvidence) -> Table:
    table = make_table(f"Spikes flipped by {found.perturbation}")
    for name in ("|V - threshold|", "neurons %", "flipped %", "Theorem 1 %"):
        table.add_column(name, justify="right")
    for part in found.bins:
        reach = f"{part.low:g} to {part.high:g}" if part.high < float("inf") else f"{part.low:g} and more"
        table.add_row(reach, _percent(part.share), *(_fine(value) for value in (part.flipped, part.predicted)))
    table.add_row("all", "100.0", _fine(found.flipped), _fine(found.predicted))
    return table


def _lines(found: Landscape) -> Table:
    table = make_table(f"Loss ({found.loss}) around the images")
    table.add_column("step / eps", justify="right")
    for line in found.lines:
        table.add_column(f"{line.direction}: loss", justify="right")
        table.add_column("right %", justify="right")
    for i, step in enumerate(found.lines[0].steps):
        row = [value for line in found.lines for value in (_number(line.loss[i]), _percent(line.accuracy[i]))]
        table.add_row(f"{step:g}", *row)
    return table


def _plane(found: Plane) -> Table:
    table = make_table(f"Loss, plane of {found.space}, unit {found.unit:.3g}")
    table.add_column("", justify="right")
    for step in found.steps:
        table.add_column(f"{step:g}", justify="right")
    for step, row in zip(found.steps, found.loss, strict=True):
        table.add_row(f"{step:g}", *map(_number, row))
    return table


def _three(values: Spread) -> tuple[str, str, str]:
    return _number(values.median), _number(values.mean), _number(values.high)


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.1f}"


def _fine(share: float) -> str:
    return "-" if share != share else f"{100 * share:.3f}"


def _number(value: float) -> str:
    return "-" if value != value else f"{value:.3g}"
