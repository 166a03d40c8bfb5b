"""What the peers' scripts have in common: they are measured by requests on standard input.

A request is a line {"workload": {...}, "threads": N, "seconds": S, "repeat": R}, with a row of workloads.json; the
answer is a line {"peer": name, "workload": name, "threads": N, "samples_per_s": best of the repeats}, or with
"failed": why, instead of a figure. So a peer is started once for all workloads, and is idle while others are measured.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

Step = Callable[[], int]  # trains on some batches, returns how many rows they had


class CannotExpress(Exception):
    """The peer has no such layer, loss or optimizer."""


@dataclass
class Request:
    workload: dict[str, Any]
    threads: int
    seconds: float
    repeat: int

    @property
    def classes(self) -> int:
        """How many classes the targets have; 0 for numbers."""
        return 0 if self.workload["loss"] == "mse" else self.workload["layers"][-1][1]


def best_rate(step: Step, seconds: float, repeat: int) -> float:
    """Rows a second: the fastest of the repeats, after a step that warms up."""
    step()
    best = 0.0
    for _ in range(repeat):
        begin = time.perf_counter()
        rows, passed = 0, 0.0
        while passed < seconds:
            rows += step()
            passed = time.perf_counter() - begin
        best = max(best, rows / passed)
    return best


def perceptron(workload: dict[str, Any], activations: dict[str, str]) -> tuple[list[int], str]:
    """For peers that know plain perceptrons only: the units of the hidden layers, and what the peer calls the activation
    that all of them have."""
    layers = workload["layers"]
    if any(layer[0] != "dense" for layer in layers):
        raise CannotExpress("only dense layers")
    used = {layer[2] for layer in layers[:-1]}
    if len(used) != 1:
        raise CannotExpress("only one activation for all layers")
    if used.isdisjoint(activations):
        raise CannotExpress(*used)
    if workload["optimizer"] != "adam":
        raise CannotExpress("its momentum is of another kind")
    return [layer[1] for layer in layers[:-1]], activations[used.pop()]


def random_table(request: Request, rows_max: int, work: float) -> tuple[np.ndarray, np.ndarray]:
    """Inputs from [-1, 1), and of each row its class, or a number: for peers that train no less than an epoch. So that one
    does not take long, a large network has only as many rows as make about `work` multiply-adds of a forward pass: no
    disadvantage, since few rows stay in the cache."""
    import numpy as np  # not every peer has it

    workload, random = request.workload, np.random.default_rng(0)
    sizes = [workload["input"][0], *(layer[1] for layer in workload["layers"])]
    weights = sum(inputs * outputs for inputs, outputs in pairwise(sizes))
    rows = min(workload["rows"], rows_max, max(workload["batch"], int(work / weights)))
    x = random.random((rows, sizes[0]), dtype=np.float32) * 2 - 1
    return x, random.integers(0, request.classes, rows) if request.classes else random.random(rows, dtype=np.float32)


def reason(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}"[:300] if text else type(error).__name__


def serve(name: str, prepare: Callable[[Request], Step], measure: Callable[[Step, float, int], float] = best_rate) -> None:
    """Answers requests until standard input ends. Other output of the peer's goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        request = Request(asked["workload"], asked["threads"], asked["seconds"], asked["repeat"])
        answer: dict[str, Any] = {"peer": name, "workload": request.workload["name"], "threads": request.threads}
        try:
            answer["samples_per_s"] = round(measure(prepare(request), request.seconds, request.repeat), 1)
        except CannotExpress as error:
            answer["failed"] = f"cannot express it: {error}"
        except Exception as error:  # whatever it is, it is this peer's answer
            traceback.print_exc()
            answer["failed"] = reason(error)
        print(json.dumps(answer), file=answers, flush=True)
