"""The same bytes for every loss with its parameters, with weights of rows and classes, and for several targets: for any
number of threads, any instruction set, and across a kill in the middle of an epoch."""

import math
import random

import pytest

import data
from conftest import Daemon
from smooth import fingerprint

THREADS = {"avx2": [1, 3], "avx512": [1, 2, 3, 5], "neon": [1, 2, 3, 5]}


def table(rows=700, seed=11):
    r = random.Random(seed)
    out = []
    for i in range(rows):
        x = [r.gauss(0, 1) for _ in range(5)]
        y = math.sin(x[0]) + x[1] * x[2]
        e = [math.exp(x[0]), math.exp(x[1]), 1]
        out.append([*(f"{v:.5f}" for v in x), f"{y:.5f}", int(abs(3 * y)), "abc"[i % 2 + (y > 0)], "no" if y < 0 else "yes",
                    *(f"{v / sum(e):.7f}" for v in e), i % 4])
    return data.csv(["a", "b", "c", "d", "e", "y", "n", "kind", "side", "p", "q", "r", "w"], out)


SPECS = {
    "smoothing": {"target": "kind", "loss": {"type": "cross_entropy", "label_smoothing": 0.1},
                  "class_weights": "balanced", "metrics": ["f1_macro", "auc", "top_k"]},
    "mae": {"target": "y", "loss": "mae", "sample_weight": "w"},
    "huber": {"target": "y", "loss": {"type": "huber", "delta": 0.4}},
    "quantile": {"target": "y", "loss": {"type": "quantile", "q": 0.8}},
    "poisson": {"target": "n", "loss": "poisson", "sample_weight": "w"},
    "hinge": {"target": "side", "loss": "hinge", "class_weights": {"yes": 3}},
    "margins": {"target": "kind", "loss": "hinge"},
    "shares": {"target": ["p", "q", "r"], "loss": "kl_div"},
    "several": {"target": ["kind", "y", "n"]},
    "itself": {"target": "features"},
}


def full(name):
    spec = {"dataset": "losses", "features": ["a", "b", "c", "d", "e"], "layers": [96, 96], "epochs": 4,
            "batch_size": 200, **SPECS[name]}
    return spec


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The fingerprint of each spec on one thread in portable C."""
    daemon = Daemon(tmp_path_factory.mktemp("plain") / "data", "--threads", "1",
                    env={"BACKPROPD_SIMD": "generic"}).start()
    daemon.upload("losses", table())
    found = {name: fingerprint(daemon, daemon.train(full(name))["id"]) for name in SPECS}
    assert daemon.stop() == 0
    assert len(set(found.values())) == len(SPECS)
    return found


@pytest.mark.parametrize("simd", THREADS)
def test_threads_and_instruction_sets(tmp_path, found, simd):
    try:
        daemon = Daemon(tmp_path / "data", "--threads", "5", "--workers", "1", env={"BACKPROPD_SIMD": simd}).start()
    except AssertionError:
        pytest.skip(f"this CPU has no {simd}")
    daemon.upload("losses", table())
    for name in SPECS:
        for threads in THREADS[simd]:
            assert fingerprint(daemon, daemon.train({**full(name), "threads": threads})["id"]) == found[name], \
                (name, threads)
    assert daemon.stop() == 0


@pytest.mark.parametrize("name", ["smoothing", "several"])
def test_paused_in_the_middle_of_an_epoch(tmp_path, name):
    """Counts by class are part of a checkpoint: the series after a pause are those of an undisturbed run."""
    daemon = Daemon(tmp_path / "data", "--threads", "2").start()
    daemon.upload("losses", table())
    spec = {**full(name), "epochs": 400, "batch_size": 20}
    whole = daemon.train(spec)["id"]
    job = daemon.submit(spec)["id"]
    for _ in range(3):
        daemon.wait(job, lambda j: j["progress"]["step"] > 0 or j["status"] == "succeeded")
        daemon.post(f"/v1/jobs/{job}/pause")
        if daemon.wait(job, lambda j: j["status"] in ("paused", "succeeded"))["status"] == "succeeded":
            break
        assert daemon.post(f"/v1/jobs/{job}/resume").status_code == 200
    daemon.wait(job)
    assert fingerprint(daemon, job) == fingerprint(daemon, whole)
    series = [daemon.get(f"/v1/jobs/{j}/metrics").json() for j in (whole, job)]
    assert series[0].get("series", series[0].get("data")) == series[1].get("series", series[1].get("data"))
    assert daemon.stop() == 0
