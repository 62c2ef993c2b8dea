"""Small drawings as SVG, in the colours of the page."""

from collections.abc import Sequence
from html import escape

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 320, 180, 34, 26, 10


def meter(value: float, low: float, high: float) -> str:
    """A bar from 0 to 1 with the interval across its end."""
    start, end = max(0.0, low), min(1.0, high)
    return (
        '<div class="meter" aria-hidden="true"><svg viewBox="0 0 100 8" preserveAspectRatio="none">'
        f'<rect class="fill" x="0" y="0" width="{100 * value:.2f}" height="8"/>'
        f'<rect class="interval" x="{100 * start:.2f}" y="3" width="{max(0.6, 100 * (end - start)):.2f}" height="2"/>'
        "</svg></div>"
    )


def eps_plot(points: Sequence[tuple[float, str, float, float, float]], title: str) -> str:
    """Accuracy over the budget.

    Args:
        points: (eps, eps as written, rate, low, high), by eps; rates in [0, 1].
        title: read out in place of the picture, with the points.
    """
    largest = max(eps for eps, *_ in points) or 1.0

    def x(eps: float) -> float:
        return _LEFT + eps / largest * (_WIDTH - _LEFT - 14)

    def y(rate: float) -> float:
        return _TOP + (1 - min(1.0, max(0.0, rate))) * (_HEIGHT - _BOTTOM - _TOP)

    read = ", ".join(f"{100 * rate:.1f}% at {text}" for _, text, rate, _, _ in points)
    parts = [
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(f"{title}: {read}")}">'
    ]
    for rate in (0.0, 0.5, 1.0):
        parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - 8}" y1="{y(rate):.1f}" y2="{y(rate):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y(rate) + 4:.1f}" text-anchor="end">{100 * rate:.0f}</text>')
    upper = [f"{x(eps):.1f},{y(high):.1f}" for eps, _, _, _, high in points]
    lower = [f"{x(eps):.1f},{y(low):.1f}" for eps, _, _, low, _ in reversed(points)]
    parts.append(f'<polygon class="band" points="{" ".join(upper + lower)}"/>')
    line = " ".join(f"{x(eps):.1f},{y(rate):.1f}" for eps, _, rate, _, _ in points)
    parts.append(f'<polyline class="line" points="{line}"/>')
    last = -99.0
    for eps, text, rate, low, high in points:
        said = f"eps {text}: {100 * rate:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        dot = f'<circle class="dot" cx="{x(eps):.1f}" cy="{y(rate):.1f}" r="4"><title>{escape(said)}</title></circle>'
        parts.append(dot)
        if x(eps) - last > 34:
            parts.append(f'<text x="{x(eps):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(text)}</text>')
            last = x(eps)
    return "".join([*parts, "</svg>"])
