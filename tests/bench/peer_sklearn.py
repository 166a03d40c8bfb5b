"""scikit-learn as a peer: MLPClassifier and MLPRegressor, an epoch a step, where they can express the network.

peer_sklearn.py      requests on standard input, see peer.py
"""

from __future__ import annotations

import warnings

import numpy as np
import sklearn
from peer import Request, Step, perceptron, random_table, serve
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits

ROWS_MAX, WORK = 20000, 6e9  # of an epoch, which is one step and should not take much longer than a repeat
ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic"}


def prepare(request: Request) -> Step:
    workload = request.workload
    hidden, activation = perceptron(workload, ACTIVATIONS)
    threadpool_limits(request.threads)
    x, y = random_table(request, ROWS_MAX, WORK)
    make = MLPClassifier if request.classes else MLPRegressor
    model = make(hidden_layer_sizes=hidden, activation=activation, solver="adam", batch_size=workload["batch"])
    known = {"classes": np.arange(request.classes)} if request.classes else {}

    def step() -> int:
        model.partial_fit(x, y, **known)
        return len(x)

    return step


warnings.filterwarnings("ignore")
serve(f"scikit-learn {sklearn.__version__}", prepare)
