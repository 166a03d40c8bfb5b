"""The diagnosis on a labelled set of runs: every ill is found, and nothing is found in the healthy ones.

Each run is a small network on data made here, with one thing done wrong. `expect` names what must be found; a run that
goes wrong in one way often shows another as well (weights that are too large saturate a tanh and also kill its
gradient), so an ill run may have the further findings that `also` names, and no others.
"""

import math
import random
import time

import pytest

import data
from conftest import PATIENCE


# --- data ---

def blobs(rows=300, classes=3, features=6, spread=0.6, seed=4, shares=None):
    """Classes around points: easy to tell apart. shares: of the classes, else all alike."""
    r = random.Random(seed)
    centres = [[r.choice([-1.5, 1.5]) for _ in range(features)] for _ in range(classes)]
    out = []
    for i in range(rows):
        c = r.choices(range(classes), shares)[0] if shares else i % classes
        out.append([f"{r.gauss(m, spread):.3f}" for m in centres[c]] + ["abcdefgh"[c]])
    return data.csv([f"x{i}" for i in range(features)] + ["class"], out)


def seldom(rows=400, seed=15):
    """A number that is 0 in most rows: its median is 0 whatever the row, far below its mean."""
    r = random.Random(seed)
    return data.csv(["a", "b", "y"], [[f"{r.gauss(0, 1):.3f}", f"{r.gauss(0, 1):.3f}",
                                       "0" if r.random() < 0.6 else f"{r.gauss(1.1, 0.05):.3f}"] for _ in range(rows)])


def counts(rows=300, seed=16):
    """Counts far above the 1 that an untrained network says."""
    r = random.Random(seed)
    return data.csv(["a", "b", "y"], [[f"{(a := r.gauss(0, 1)):.3f}", f"{r.gauss(0, 1):.3f}",
                                       max(0, round(9 + 2 * a + r.gauss(0, 0.5)))] for _ in range(rows)])


def noise(rows=90, classes=3, features=8, seed=5):
    """Nothing to learn: the classes have nothing to do with the numbers."""
    r = random.Random(seed)
    return data.csv([f"x{i}" for i in range(features)] + ["class"],
                    [[f"{r.gauss(0, 1):.3f}" for _ in range(features)] + [r.choice("abc")] for _ in range(rows)])


def waves(rows=400, seed=6, factor=1.0, jitter=0.05, shift=0.0):
    """A smooth function of three numbers."""
    r = random.Random(seed)
    out = []
    for _ in range(rows):
        x = [r.uniform(-1, 1) for _ in range(3)]
        y = math.sin(2 * x[0]) + x[1] * x[2] + r.gauss(0, jitter)
        out.append([f"{v:.4f}" for v in x] + [f"{shift + factor * y:.4f}"])
    return data.csv(["p", "q", "r", "y"], out)


def moments(at, rows=300, steps=30, seed=15):
    """A sequence a row; the class is the sign of one of its numbers."""
    r = random.Random(seed)
    out = [[f"{r.gauss(0, 1):.3f}" for _ in range(steps)] for _ in range(rows)]
    return data.csv([f"x{i}" for i in range(steps)] + ["class"], [row + ["ab"[row[at][0] == "-"]] for row in out])


DATASETS = {
    "early": moments(0), "late": moments(-1),
    "blobs": blobs(), "blobs8": blobs(rows=320, classes=4, features=8, seed=9), "noise": noise(), "waves": waves(),
    "tall": waves(factor=10000.0), "flowers": data.flowers(rows=240), "rings": data.rings(),
    "rare": blobs(rows=400, classes=2, shares=[0.95, 0.05], seed=11),
    "rarer": blobs(rows=500, classes=3, shares=[0.7, 0.27, 0.03], seed=12),
    "jitter": waves(rows=60, jitter=1.5, seed=13),
    "far": waves(factor=77.0, shift=152.0), "dice": waves(rows=1000, factor=0.01, jitter=100.0, seed=14),
    "seldom": seldom(), "counts": counts(),
}

# --- specs ---

TARGET = {"waves": "y", "tall": "y", "jitter": "y", "far": "y", "dice": "y", "seldom": "y", "counts": "y", "flowers": "species", "rings": "side"}


def dense(units, activation, **more):
    return {"type": "dense", "units": units, "activation": activation, **more}


def spec(name, layers, optimizer, epochs=30, batch=32, dataset=None, **more):
    return {"dataset": {"name": name, "target": TARGET.get(name, "class"), **(dataset or {})},
            "model": {"layers": layers}, "optimizer": optimizer, "training": {"epochs": epochs, "batch_size": batch},
            **more}


def sgd(lr, **more):
    return {"type": "sgd", "lr": lr, **more}


def adam(lr):
    return {"type": "adam", "lr": lr}


def normal(std, mean=0.0):
    return {"type": "normal", "mean": mean, "std": std}


HE = "he_uniform"
OUTPUT = {"type": "dense", "units": "auto"}
STEPS = {"type": "reshape", "shape": [30, 1]}

RUNS = {
    # name: (spec, expected finding or None, further findings that may come with it)
    "vanish_sigmoid": (spec("blobs", [dense(16, "sigmoid")] * 8, sgd(0.1)), "vanishing_gradients", ()),
    "vanish_tanh": (spec("rings", [dense(16, "tanh", kernel_initializer=normal(0.05))] * 6, sgd(0.05)),
                    "vanishing_gradients", ()),
    "vanish_relu": (spec("waves", [dense(16, "relu", kernel_initializer=normal(0.06))] * 7, sgd(0.01)),
                    "vanishing_gradients", ("dead_units",)),
    "vanish_hard": (spec("flowers", [dense(12, "sigmoid", kernel_initializer=normal(0.3))] * 6, adam(0.001)),
                    "vanishing_gradients", ()),

    "explode_relu": (spec("blobs", [dense(64, "relu", kernel_initializer=normal(1.0))] * 5, sgd(1e-7), epochs=8),
                     "exploding_gradients", ()),
    "explode_linear": (spec("blobs8", [dense(64, "linear", kernel_initializer=normal(0.7))] * 5 + [OUTPUT],
                            sgd(1e-7), epochs=8),
                       "exploding_gradients", ()),
    "explode_target": (spec("tall", [dense(16, "tanh")], sgd(1e-7), dataset={"target_scale": "none"}, epochs=8),
                       "exploding_gradients", ()),

    "dead_bias": (spec("blobs", [dense(32, "relu", bias_initializer={"type": "constant", "value": -8.0}),
                                 dense(16, "relu", kernel_initializer=HE)], adam(0.001)), "dead_units", ()),
    "dead_weights": (spec("blobs8", [dense(32, "relu", kernel_initializer=HE),
                                     dense(32, "relu", kernel_initializer=normal(0.1, -0.5))], sgd(0.01)),
                     "dead_units", ()),

    "saturate_tanh": (spec("blobs", [dense(32, "tanh", kernel_initializer=normal(6.0)), dense(16, "tanh")],
                           adam(0.001)), "saturation", ()),
    "saturate_sigmoid": (spec("rings", [dense(32, "sigmoid",
                                              kernel_initializer={"type": "uniform", "low": -60.0, "high": 60.0})],
                              adam(0.001)), "saturation", ()),

    "time_simple": (spec("early", [STEPS, {"type": "simple_rnn", "units": 8}], sgd(0.05), epochs=20),
                    "vanishing_through_time", ()),
    "time_lstm": (spec("early", [STEPS, {"type": "lstm", "units": 8}], sgd(0.05), epochs=20),
                  "vanishing_through_time", ()),
    "low_recurrent": (spec("late", [STEPS, {"type": "gru", "units": 8}], sgd(1e-5), epochs=20),
                      "learning_rate_too_low", ()),

    "high_sgd": (spec("waves", [dense(32, "relu", kernel_initializer=HE)], sgd(3.0)), "learning_rate_too_high",
                 ("divergence", "dead_units")),
    "high_adam": (spec("rings", [dense(32, "relu", kernel_initializer=HE), dense(16, "relu", kernel_initializer=HE)],
                       adam(3.0)), "learning_rate_too_high", ("dead_units",)),
    "high_tanh": (spec("noise", [dense(16, "tanh"), dense(16, "tanh")], sgd(20.0)), "learning_rate_too_high",
                  ("saturation",)),
    "high_runs_away": (spec("waves", [dense(16, "linear"), dense(16, "linear"), OUTPUT], sgd(30.0)), "divergence",
                       ("learning_rate_too_high",)),
    "rolled_back": (spec("waves", [dense(16, "linear"), dense(16, "linear"), OUTPUT], sgd(30.0),
                         training={"epochs": 30, "batch_size": 32,
                                   "on_divergence": {"action": "rollback", "max": 50, "lr_factor": 0.3}}),
                    "divergence", ("learning_rate_too_high",)),

    "low_sgd": (spec("blobs", [dense(16, "relu")], sgd(1e-5)), "learning_rate_too_low", ()),
    "low_adam": (spec("waves", [dense(16, "tanh")], adam(1e-7)), "learning_rate_too_low", ()),
    "low_deep": (spec("flowers", [dense(16, "relu", kernel_initializer=HE)] * 2, sgd(1e-6, momentum=0.5)),
                 "learning_rate_too_low", ()),
    "low_steady": (spec("blobs8", [dense(16, "relu")], sgd(2e-4), epochs=20), "learning_rate_too_low", ()),

    "overfit_noise": (spec("noise", [dense(128, "relu", kernel_initializer=HE)], adam(0.005), epochs=150),
                      "overfitting", ()),
    "overfit_jitter": (spec("jitter", [dense(128, "relu", kernel_initializer=HE), dense(64, "relu")], adam(0.005),
                            epochs=200), "overfitting", ()),

    "imbalance_two": (spec("rare", [dense(16, "relu")], adam(0.01)), "class_imbalance", ()),
    "imbalance_three": (spec("rarer", [dense(16, "tanh")], adam(0.01)), "class_imbalance", ()),

    "far_unscaled": (spec("far", [dense(16, "relu")], adam(0.001), dataset={"target_scale": "none"}),
                     "worse_than_mean", ()),
    "far_unscaled_deep": (spec("far", [dense(16, "tanh"), dense(16, "tanh")], sgd(1e-4),
                               dataset={"target_scale": "none"}, epochs=3), "worse_than_mean", ()),
    "counts_slow": (spec("counts", [dense(8, "tanh")], sgd(2e-4), loss="poisson", epochs=5), "worse_than_mean", ()),
    "nothing_to_learn": (spec("dice", [dense(4, "tanh")], adam(0.001), epochs=20), "no_better_than_mean", ()),

    "symmetric_constant": (spec("blobs", [dense(16, "tanh", kernel_initializer={"type": "constant", "value": 0.1},
                                                bias_initializer="zeros"),
                                    {**OUTPUT, "kernel_initializer": {"type": "constant", "value": 0.1}}],
                           sgd(0.1), allow_symmetric=True), "symmetric_start", ()),
    "symmetric_zeros": (spec("rings", [dense(16, "sigmoid", kernel_initializer="zeros", bias_initializer="zeros"),
                                       dense(8, "sigmoid", kernel_initializer="zeros", bias_initializer="zeros")],
                             sgd(0.1), allow_symmetric=True), "symmetric_start", ()),
    "healthy_broken": (spec("blobs", [dense(16, "tanh", kernel_initializer={"type": "constant", "value": 0.1})],
                            sgd(0.1), allow_symmetric=True), None, ()),  # the random output layer tells the units apart

    "healthy_flowers": (spec("flowers", [dense(32, "relu"), dense(16, "relu")], adam(0.005)), None, ()),
    "healthy_blobs": (spec("blobs", [dense(32, "tanh")], sgd(0.05, momentum=0.9)), None, ()),
    "healthy_blobs8": (spec("blobs8", [dense(64, "relu"), dense(32, "relu")], adam(0.001)), None, ()),
    "healthy_waves": (spec("waves", [dense(32, "tanh"), dense(32, "tanh")], adam(0.005), epochs=60), None, ()),
    "healthy_rings": (spec("rings", [dense(32, "relu", kernel_initializer=HE)], adam(0.01), epochs=40), None, ()),
    "healthy_sigmoid": (spec("blobs", [dense(32, "sigmoid")], adam(0.01)), None, ()),
    "healthy_deep": (spec("waves", [dense(32, "relu", kernel_initializer=HE)] * 5, adam(0.002), epochs=40), None, ()),
    "healthy_far": (spec("far", [dense(32, "relu")], adam(0.005)), None, ()),
    "healthy_far_unscaled": (spec("far", [dense(32, "relu")], adam(0.1), dataset={"target_scale": "none"}, epochs=60),
                             None, ()),
    "healthy_seldom": (spec("seldom", [dense(16, "relu")], adam(0.01), loss="mae", epochs=40), None, ()),
    "healthy_late": (spec("late", [STEPS, {"type": "gru", "units": 8}], adam(0.01)), None, ()),
    "healthy_plain": (spec("waves", [dense(16, "tanh")], sgd(0.1), epochs=60), None, ()),
}


@pytest.fixture(scope="module")
def diagnosed(daemon):
    """The diagnosis of every run, all trained side by side."""
    for name, text in DATASETS.items():
        daemon.upload(name, text)
    jobs = {name: daemon.submit({**run[0], "threads": 1})["id"] for name, run in RUNS.items()}
    out = {}
    for name, job in jobs.items():
        ended = daemon.wait(job)
        assert ended["status"] == "succeeded" or name.startswith("high_"), (name, ended["error"])
        out[name] = daemon.get(f"/v1/jobs/{job}/diagnosis").json()
    return out


@pytest.mark.parametrize("name", RUNS)
def test_the_diagnosis_of(diagnosed, name):
    _, expected, also = RUNS[name]
    found = {f["code"]: f for f in diagnosed[name]["findings"]}
    if expected is None:
        assert list(found) == ["healthy"], found
        assert diagnosed[name]["healthy"] is True
        return
    assert diagnosed[name]["healthy"] is False
    assert expected in found, found
    assert set(found) - {expected} <= set(also), found
    finding = found[expected]
    assert "nan" not in finding["detail"].lower()
    assert finding["detail"] and finding["advice"] and finding["evidence"] and finding["learn"].startswith("/learn/")


def test_a_cure_is_one_that_the_run_can_take(diagnosed):
    """Counts cannot be scaled for the poisson loss, and the daemon would refuse it."""
    for name, scales in (("counts_slow", False), ("far_unscaled", True)):
        finding = next(f for f in diagnosed[name]["findings"] if f["code"] == "worse_than_mean")
        assert ("target_scale" in finding["advice"]) == scales, finding


def test_a_run_on_its_way_to_the_mean_is_not_blamed(daemon):
    """In its first epochs any run is worse than the mean; what counts is where it is going."""
    daemon.upload("far", DATASETS["far"])
    run = spec("far", [dense(32, "relu")], adam(0.02), dataset={"target_scale": "none"}, epochs=1_000_000)
    job = daemon.submit(run)["id"]
    seen = set()
    deadline = time.monotonic() + PATIENCE
    while not (r2 := daemon.job(job)["metrics"]["last"].get("val_r2")) or r2 < 0.5:
        assert time.monotonic() < deadline, r2
        seen |= {f["code"] for f in daemon.get(f"/v1/jobs/{job}/diagnosis").json()["findings"]}
    daemon.post(f"/v1/jobs/{job}/stop")
    assert daemon.wait(job)["status"] == "succeeded"
    assert not seen & {"worse_than_mean", "no_better_than_mean"}, seen
