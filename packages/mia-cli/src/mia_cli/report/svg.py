"""Figures of the report as inline SVG: they follow the page's colours, in light and dark.

Every function returns `Markup`; texts that come from data are escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

WIDTH, HEIGHT = 280, 130
LEFT, RIGHT, TOP, BOTTOM = 64, 10, 10, 26
"""Margins of a plot in px; on the left there is room for seven figures in the letters of a narrow page."""
MOST_POINTS = 400
"""Of a curve: more cannot be told apart at this width."""


def histogram(
    title: str,
    wrong: Sequence[float],
    right: Sequence[float],
    threshold: float | None,
    *,
    chance: float | None = None,
    bins: int = 25,
) -> Markup:
    """Values in 0..1: those of wrong answers stacked on those of right ones, with the threshold and what chance would give."""
    low = _counted(right, bins)
    high = [a + b for a, b in zip(low, _counted(wrong, bins), strict=True)]
    top = max(1, *high)
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    bar = plot_width / bins
    parts = []
    for index, (inner, outer) in enumerate(zip(low, high, strict=True)):
        x = LEFT + index * bar
        for css, start, end in (("right", 0, inner), ("wrong", inner, outer)):
            if end > start:
                y = TOP + plot_height * (1 - end / top)
                parts.append(_rect(css, x + 0.5, y, bar - 1, plot_height * (end - start) / top))
    for css, value in (("threshold", threshold), ("chance", chance)):
        if value is not None:
            x = LEFT + min(1.0, max(0.0, value)) * plot_width
            parts.append(_line(css, x, TOP, x, TOP + plot_height))
    ticks = [(0.0, "0"), (0.25, ""), (0.5, "0.5"), (0.75, ""), (1.0, "1")]
    limit = f", threshold {threshold:.2f}" if threshold is not None else ""
    label = f"{title}: {len(right)} right and {len(wrong)} wrong answers{limit}"
    return _figure(label, [*parts, *_x_axis(ticks), *_y_axis("0", str(top))])


def curve(title: str, points: Sequence[tuple[float, float]]) -> Markup:
    """A line through (x, y) points; points that are no finite numbers are left out, of very many the means are drawn."""
    finite = thinned([(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)])
    if not finite:
        return Markup("")
    first, last = min(x for x, _ in finite), max(x for x, _ in finite)
    low, high = min(y for _, y in finite), max(y for _, y in finite)
    if low == high:
        low, high = low - 0.5, high + 0.5
    plot_width, plot_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    across = (last - first) or 1.0
    places = " ".join(
        f"{LEFT + (x - first) / across * plot_width:.1f},{TOP + (high - y) / (high - low) * plot_height:.1f}" for x, y in finite
    )
    parts = [Markup('<polyline class="curve" points="{}"/>').format(places)]
    label = f"{title}: from {short(finite[0][1])} to {short(finite[-1][1])}"
    ends = [(0.0, short(first)), (1.0, short(last))]
    lowest = short(low) if abs(low) > (high - low) / 1000 else "0"
    return _figure(label, [*parts, *_x_axis(ends), *_y_axis(lowest, short(high))])


def thinned(points: Sequence[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most `most` points: the means of equally many neighbours each, the last of the rest.

    >>> thinned([(1, 1), (2, 3), (3, 5), (4, 7), (5, 9)], most=3)
    [(1.5, 2.0), (3.5, 6.0), (5.0, 9.0)]
    """
    step = math.ceil(len(points) / most)
    if step <= 1:
        return list(points)
    groups = [points[start : start + step] for start in range(0, len(points), step)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]


def interval(value: float, low: float, high: float, bound: float) -> Markup:
    """A difference with its 95 % interval beside a line at 0; `bound`: what lies at either edge."""
    width, height, edge = 200, 18, 6
    scale = (width / 2 - edge) / max(0.01, bound)
    middle, y = width / 2, height / 2
    css = "better" if low > 0 else "worse" if high < 0 else "open"
    parts = [
        _line("zero", middle, 0, middle, height),
        _line(f"interval {css}", middle + low * scale, y, middle + high * scale, y),
        Markup('<circle class="{}" cx="{}" cy="{}" r="4"/>').format(css, f"{middle + value * scale:.1f}", y),
    ]
    return _figure(f"{value:+.1f}, from {low:+.1f} to {high:+.1f}", parts, width, height)


def short(value: float) -> str:
    """A number for an axis, in seven characters at most where its exponent has one digit.

    >>> short(0.00005), short(12.3456), short(1500), short(-0.000038), short(1851750)
    ('5e-5', '12.3', '1500', '-3.8e-5', '1.9e6')
    """
    if 100 <= abs(value) < 100_000 and value == round(value):
        return f"{value:.0f}"
    if value == 0 or 0.01 <= abs(value) < 100_000:
        return f"{value:.3g}"
    number, _, power = f"{value:.1e}".partition("e")
    return f"{number.removesuffix('.0')}e{int(power)}"


def _counted(values: Sequence[float], bins: int) -> list[int]:
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, max(0, int(value * bins)))] += 1
    return counts


def _figure(label: str, parts: Sequence[Markup], width: int = WIDTH, height: int = HEIGHT) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, label)
    return head + Markup("").join(parts) + Markup("</svg>")


def _x_axis(ticks: Sequence[tuple[float, str]]) -> list[Markup]:
    base, plot_width = HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT
    parts = [_line("axis", LEFT, base, WIDTH - RIGHT, base)]
    for place, text in ticks:
        x = LEFT + place * plot_width
        parts.append(_line("axis", x, base, x, base + 4))
        parts.append(_text("last", WIDTH - 1, base + 18, text) if place == 1 else _text("x", x, base + 18, text))
    return parts


def _y_axis(low: str, high: str) -> list[Markup]:
    return [_text("y", LEFT - 4, TOP + 8, high), _text("y", LEFT - 4, HEIGHT - BOTTOM, low)]


def _rect(css: str, x: float, y: float, width: float, height: float) -> Markup:
    shape = '<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>'
    return Markup(shape).format(css, f"{x:.1f}", f"{y:.1f}", f"{width:.1f}", f"{height:.1f}")


def _line(css: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    shape = '<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>'
    return Markup(shape).format(css, f"{x1:.1f}", f"{y1:.1f}", f"{x2:.1f}", f"{y2:.1f}")


def _text(css: str, x: float, y: float, text: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(css, f"{x:.1f}", f"{y:.1f}", escape(text))
