"""Small datasets, made here so that a test says what is in them."""

import math
import random


def csv(header, rows):
    return "\n".join([",".join(header), *(",".join(map(str, row)) for row in rows)]) + "\n"


def flowers(rows=150, seed=1):
    """Three classes in four numbers, as the irises: easy, and not quite separable."""
    r = random.Random(seed)
    centres = {"setosa": (5.0, 3.4, 1.5, 0.2), "versicolor": (5.9, 2.8, 4.3, 1.3), "virginica": (6.6, 3.0, 5.6, 2.0)}
    names = list(centres)
    data = []
    for i in range(rows):
        name = names[i % 3]
        data.append([f"{r.gauss(c, 0.25):.2f}" for c in centres[name]] + [name])
    return csv(["sepal_length", "sepal_width", "petal_length", "petal_width", "species"], data)


def houses(rows=240, seed=2):
    """A price in thousands from a size, an age (sometimes missing) and a district."""
    r = random.Random(seed)
    extra = {"north": 0.0, "south": 40.0, "old town": 90.0}
    data = []
    for _ in range(rows):
        size, age, district = r.uniform(30, 200), r.uniform(0, 80), r.choice(list(extra))
        price = 50 + 2.5 * size - 0.8 * age + extra[district] + r.gauss(0, 4)
        data.append([f"{size:.1f}", "" if r.random() < 0.05 else f"{age:.0f}", district, f"{price:.2f}"])
    return csv(["size", "age", "district", "price"], data)


def rings(rows=400, seed=3):
    """Inside or outside a circle: nothing that a straight line can tell apart."""
    r = random.Random(seed)
    data = []
    for i in range(rows):
        radius, angle = (r.uniform(0, 0.8), r.uniform(1.2, 2.0))[i % 2], r.uniform(0, 2 * math.pi)
        data.append([f"{radius * math.cos(angle):.4f}", f"{radius * math.sin(angle):.4f}", ("in", "out")[i % 2]])
    return csv(["x", "y", "side"], data)
