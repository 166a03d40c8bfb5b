"""scikit-learn as a peer: MLPClassifier and MLPRegressor, an epoch a step, where they can express the network.

peer_sklearn.py      requests on standard input, see peer.py
"""

from __future__ import annotations

import warnings

import numpy as np
import sklearn
from peer import CannotExpress, Request, Step, dense_only, serve
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits

ROWS_MAX = 20000  # an epoch is one step: it should not take much longer than a repeat
ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic"}


def prepare(request: Request) -> Step:
    workload = request.workload
    hidden = dense_only(workload)
    activation = workload["layers"][0][2]
    if activation not in ACTIVATIONS:
        raise CannotExpress(activation)
    if workload["optimizer"] != "adam":
        raise CannotExpress("SGD exists, but its momentum is another")
    threadpool_limits(request.threads)
    random = np.random.default_rng(0)
    rows = min(workload["rows"], ROWS_MAX)
    x = random.random((rows, workload["input"][0]), dtype=np.float32) * 2 - 1
    y = random.integers(0, request.classes, rows) if request.classes else random.random(rows, dtype=np.float32)
    make = MLPClassifier if request.classes else MLPRegressor
    model = make(hidden_layer_sizes=hidden, activation=ACTIVATIONS[activation], solver="adam", batch_size=workload["batch"])
    known = {"classes": np.arange(request.classes)} if request.classes else {}

    def step() -> int:
        model.partial_fit(x, y, **known)
        return rows

    return step


warnings.filterwarnings("ignore")
serve(f"scikit-learn {sklearn.__version__}", prepare)
