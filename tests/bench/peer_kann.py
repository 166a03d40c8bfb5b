"""kann, a small C library for networks, as a peer: through cynn, its Python package.

    peer_kann.py [NAME]      requests on standard input, see peer.py; NAME tells builds apart

Its own trainer runs whole epochs, in C; its optimizer is RMSprop in place of Adam, which is a little less work.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from cynn import kann
from peer import CannotExpress, Request, Step, random_table, serve

ROWS_MAX, WORK = 20000, 6e9  # of an epoch, which should not take much longer than a repeat
STEP = 0.1  # seconds of a step, which is some epochs: making its threads should not show


def network(workload: dict) -> kann.KannNeuralNetwork:
    builder = kann.GraphBuilder()
    top = builder.input(workload["input"][0])
    for kind, *rest in workload["layers"][:-1]:
        if kind != "dense" or rest[1] not in ("relu", "tanh", "sigmoid"):
            raise CannotExpress(kind if kind != "dense" else rest[1])
        top = getattr(builder, rest[1])(builder.dense(top, rest[0]))
    outputs = workload["layers"][-1][1]
    cost = builder.mse_layer if workload["loss"] == "mse" else builder.softmax_cross_entropy
    return builder.build(cost(top, outputs))


def prepare(request: Request) -> Step:
    workload = request.workload
    if workload["optimizer"] != "adam":
        raise CannotExpress("its trainer knows RMSprop only")
    model = network(workload)
    if request.threads > 1:
        model.enable_multithreading(request.threads, workload["batch"])
    x, y = random_table(request, ROWS_MAX, WORK)
    y = np.eye(request.classes, dtype=np.float32)[y] if request.classes else y[:, None]
    epochs = 1

    def step() -> int:
        nonlocal epochs
        begin, trained = time.perf_counter(), len(x) * epochs
        model.train(x, y, 1e-3, workload["batch"], epochs, 0, epochs + 1, 0.0)
        if time.perf_counter() - begin < STEP:
            epochs *= 2
        return trained

    return step


kann.set_verbose(0)
serve(sys.argv[1] if len(sys.argv) > 1 else "kann", prepare)
