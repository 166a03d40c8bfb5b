"""A plot of some points against a line as SVG, both axes logarithmic, in a few lines and without a library."""

from __future__ import annotations

import math
from collections.abc import Callable
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 340, 78, 20, 34, 52


def tick_text(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten within a range; only the powers where there are many."""
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    fine = [m * 10.0**e for e in exponents for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    return fine if len(fine) <= 9 else [t for t in fine if math.log10(t) == round(math.log10(t))]


def svg(points: list[tuple[float, float]], line: Callable[[float], float], x_label: str, y_label: str, theory: str) -> str:
    xs = [x for x, _ in points]
    ys = [y for _, y in points] + [line(x) for x in xs]
    x_low, x_high = min(xs) / 1.15, max(xs) * 1.15
    y_low, y_high = min(ys) / 1.4, max(ys) * 1.4

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log(x) - math.log(x_low)) / (math.log(x_high) - math.log(x_low))
        up = (math.log(y) - math.log(y_low)) / (math.log(y_high) - math.log(y_low))
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def path(of: list[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*p) for p in of))

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<g transform="translate({LEFT},18)">',
        '<circle cx="4" cy="-4" r="4" fill="#1664a8"/><text x="14">measured</text>',
        '<path d="M96-4h24" stroke="#b0500f" stroke-width="2" stroke-dasharray="6 4"/>',
        f'<text x="126">theory: {escape(theory)}</text></g>',
    ]
    bottom, top = HEIGHT - BOTTOM, TOP
    for value in ticks(x_low, x_high):
        x = at(value, y_low)[0]
        out.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="#ddd"/>')
        out.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{tick_text(value)}</text>')
    for value in ticks(y_low, y_high):
        y = at(x_low, value)[1]
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick_text(value)}</text>')
    out.append(f'<path d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#444"/>')
    out.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>')
    middle = (top + bottom) / 2
    out.append(f'<text transform="translate(16,{middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    theory_points = path([(x, line(x)) for x in xs])
    out.append(f'<polyline points="{theory_points}" fill="none" stroke="#b0500f" stroke-width="2" stroke-dasharray="6 4"/>')
    out.append(f'<polyline points="{path(points)}" fill="none" stroke="#1664a8" stroke-width="1.5"/>')
    out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1664a8"/>' for x, y in (at(*p) for p in points)]
    return "\n".join([*out, "</svg>"]) + "\n"
