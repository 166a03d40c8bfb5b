"""H2O-3 as a peer: the service that does the same job, through its own client, from submit to model.

    peer_h2o.py [--port N]      requests on standard input, see peer.py

It starts a JVM of its own. Its networks have no Adam (the update is ADADELTA), no convolutions and no batch norm; it
trains on batches of its own kind (lock-free threads), and standardizes columns. Scoring is switched off as far as it can
be. What is measured is one model of some seconds; the table is in the JVM before the clock starts.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time

import h2o
import numpy as np
from h2o.estimators import H2ODeepLearningEstimator
from peer import Request, Step, perceptron, random_table, serve

ROWS_MAX, WORK = 5000, 5e8  # the table goes to the JVM as a CSV, and no model is less than an epoch
BUDGET = 2.0  # seconds of a model: of much less, its making would be the most
PORT = int(sys.argv[sys.argv.index("--port") + 1]) if "--port" in sys.argv else 54321
ACTIVATIONS = {"relu": "Rectifier", "tanh": "Tanh"}


def start(threads: int) -> None:
    """A JVM with so many threads; one that runs with another number is stopped first."""
    if start.threads != threads:
        if start.threads:
            h2o.cluster().shutdown()
            time.sleep(1)
        h2o.init(ip="127.0.0.1", port=PORT, nthreads=threads, max_mem_size="4g", bind_to_localhost=True, log_level="ERRR")
        h2o.no_progress()
        start.threads = threads


start.threads = 0


def upload(table: np.ndarray) -> h2o.H2OFrame:
    with tempfile.NamedTemporaryFile(suffix=".csv", delete=False) as file:
        np.savetxt(file, table, fmt="%.5g", delimiter=",")
    try:
        return h2o.upload_file(file.name, header=-1)
    finally:
        os.unlink(file.name)


def prepare(request: Request) -> Step:
    workload = request.workload
    hidden, activation = perceptron(workload, ACTIVATIONS)
    start(request.threads)
    x, y = random_table(request, ROWS_MAX, WORK)
    rows, inputs = x.shape
    frame = upload(np.column_stack([x, y]))
    if request.classes:
        frame[inputs] = frame[inputs].asfactor()
    epochs = 1.0

    def step() -> int:
        """One model, of as many epochs as will take about `BUDGET` seconds, by the one before."""
        nonlocal epochs
        begin = time.perf_counter()
        trained = int(rows * epochs)
        model = H2ODeepLearningEstimator(
            hidden=hidden,
            activation=activation,
            mini_batch_size=workload["batch"],
            epochs=epochs,
            train_samples_per_iteration=0,
            stopping_rounds=0,
            score_interval=1e6,
            score_duty_cycle=0.0,
            overwrite_with_best_model=False,
            seed=1,
        )
        model.train(y=inputs, training_frame=frame)
        h2o.remove(model.model_id)
        growth = BUDGET / (time.perf_counter() - begin)
        epochs = float(max(1, round(epochs * min(growth, 20))))
        return trained

    return step


def measure(step: Step, seconds: float, repeat: int) -> float:
    """The last of three models: the first ones are short, and of a JVM that has not compiled yet. One that takes twice
    its budget is the last: its start does not show."""
    del seconds, repeat
    for _ in range(3):
        begin = time.perf_counter()
        rows = step()
        passed = time.perf_counter() - begin
        if passed > 2 * BUDGET:
            break
    return rows / passed


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without the JVM
try:
    serve(f"H2O-3 {h2o.__version__}", prepare, measure)
finally:
    if start.threads:
        h2o.cluster().shutdown()
