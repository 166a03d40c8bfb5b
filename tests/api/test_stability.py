"""What keeps training on course: rollbacks, clipping, accumulation, budgets and goals, and first weights from elsewhere."""

import io
import json

import numpy as np
import pytest

import data

HOUSES = {"name": "houses", "target": "price", "validation_split": 0.0}
FLOWERS = {"name": "flowers", "target": "species", "validation_split": 0.0}


@pytest.fixture(scope="module")
def ready(daemon):
    daemon.upload("flowers", data.flowers())
    daemon.upload("houses", data.houses())
    return daemon


def job_spec(dataset, optimizer, **training):
    return {"dataset": dataset, "layers": [{"name": "hidden", "type": "dense", "units": 8, "activation": "relu"},
                                           {"name": "out", "type": "dense", "units": "auto"}],
            "optimizer": optimizer, "training": {"epochs": 6, "batch_size": 8, **training}}


def tensors(daemon, job, checkpoint="latest"):
    job_id = job if isinstance(job, str) else job["id"]
    reply = daemon.get(f"/v1/jobs/{job_id}/weights.npz", params={"checkpoint": checkpoint})
    assert reply.status_code == 200, reply.text
    return dict(np.load(io.BytesIO(reply.content)))


def flat(weights):
    return np.concatenate([weights[k].ravel() for k in sorted(weights)])


def series(daemon, job, name):
    return daemon.get(f"/v1/jobs/{job['id']}/metrics", params={"names": name}).json()[name]["value"]


def events(daemon, job):
    reply = daemon.get(f"/v1/jobs/{job['id']}/events", headers={"Accept": "application/json"})
    return reply.text


# --- divergence ---

def test_divergence_names_the_first_op(ready):
    job = ready.wait(ready.submit(job_spec(HOUSES, {"type": "sgd", "lr": 1e4}))["id"])
    assert job["status"] == "failed" and job["error"]["code"] == "nonfinite_loss"
    assert "step" in job["error"]["message"] and "learning rate" in job["error"]["message"]
    assert job["error"]["where"].split(".")[0] in ("hidden", "out"), job["error"]


def test_numbers_that_are_too_large_from_the_start(ready):
    """Before the first update no learning rate is to blame: the job and its diagnosis say to scale."""
    ready.upload("huge", data.csv(["a", "b", "y"], [[f"{(i - 20) * 1e37:.6e}", i, i * 1.5] for i in range(40)]))
    made = {"dataset": {"name": "huge", "target": "y", "scale": "none"}, "layers": [16], "epochs": 3}
    job = ready.wait(ready.submit(made)["id"])
    assert job["error"]["code"] == "nonfinite_loss" and "step 1;" in job["error"]["message"]
    assert "scale" in job["error"]["message"] and "learning rate" not in job["error"]["message"]
    found = ready.get(f"/v1/jobs/{job['id']}/diagnosis").json()["findings"]
    assert any(f["code"] == "divergence" and "scale: standard" in f["detail"] for f in found), found


def test_rollback_goes_back_and_finishes(ready):
    made = job_spec(HOUSES, {"type": "sgd", "lr": 1e4},
                    on_divergence={"action": "rollback", "max": 4, "lr_factor": 1e-3})
    job = ready.train(made)
    rates = series(ready, job, "lr")
    assert rates == pytest.approx([1e-2] * 6, rel=1e-9), "1e4, rolled back to 10, rolled back to 0.01"
    assert events(ready, job).count("rollback") >= 2
    loss = series(ready, job, "loss")
    assert np.isfinite(loss).all() and loss[-1] < loss[0]
    assert job["progress"]["epoch"] == 6 and job["progress"]["samples"] == 6 * 240


def test_the_run_after_rollbacks_is_one_with_that_rate(ready):
    """The same bytes as a run that had the last rate from the start: nothing of the failed attempts is left."""
    rolled = ready.train(job_spec(HOUSES, {"type": "sgd", "lr": 1e4},
                                  on_divergence={"action": "rollback", "lr_factor": 1e-3}))
    # the factors are multiplied first, then the rate
    plain = ready.train(job_spec(HOUSES, {"type": "sgd", "lr": 1e4 * (1e-3 * 1e-3)}))
    assert np.array_equal(flat(tensors(ready, rolled)), flat(tensors(ready, plain)))


def test_rollbacks_end(ready):
    made = job_spec(HOUSES, {"type": "sgd", "lr": 1e4},
                    on_divergence={"action": "rollback", "max": 2, "lr_factor": 0.9})
    job = ready.wait(ready.submit(made)["id"])
    assert job["status"] == "failed" and job["error"]["code"] == "nonfinite_loss"
    assert "2 rollbacks" in job["error"]["message"]


# --- gradients ---

@pytest.mark.parametrize("clip", [{"clip_grad_value": 0.01}, {"clip_grad_norm": 0.01},
                                  {"clip_grad_norm": 0.05, "clip_grad_value": 0.01}])
def test_clipping_bounds_the_step(ready, clip):
    """One step of plain descent moves no weight by more than the rate times the largest gradient."""
    start = ready.train(job_spec(HOUSES, {"type": "sgd", "lr": 1e-9}, epochs=1, batch_size=240))
    made = {**job_spec(HOUSES, {"type": "sgd", "lr": 1.0}, epochs=1, batch_size=240, **clip),
            "init_from": {"job": start["id"], "checkpoint": "latest"}}
    moved = flat(tensors(ready, ready.train(made))) - flat(tensors(ready, start))
    assert 0 < np.abs(moved).max() <= 0.01 * (1 + 1e-4)
    if "clip_grad_value" not in clip:
        assert np.linalg.norm(moved) == pytest.approx(0.01, rel=1e-3)


def test_accumulated_batches_are_one_large_batch(ready):
    adam = {"type": "adam", "lr": 0.01}
    parts = ready.train(job_spec(FLOWERS, adam, batch_size=8, accumulate=4))
    whole = ready.train(job_spec(FLOWERS, adam, batch_size=32))
    single = ready.train(job_spec(FLOWERS, adam, batch_size=8))
    assert parts["progress"]["steps"] == whole["progress"]["steps"] == 6 * 5
    a, b, c = (flat(tensors(ready, job)) for job in (parts, whole, single))
    np.testing.assert_allclose(a, b, atol=2e-5)
    assert np.abs(a - c).max() > 1e-3
    assert series(ready, parts, "loss") == pytest.approx(series(ready, whole, "loss"), abs=1e-5)


def test_accumulation_has_the_same_bytes_with_any_threads(ready):
    made = job_spec(FLOWERS, {"type": "adam", "lr": 0.01}, batch_size=8, accumulate=3)
    one, two = (ready.train({**made, "threads": n}) for n in (1, 2))
    assert flat(tensors(ready, one)).tobytes() == flat(tensors(ready, two)).tobytes()


# --- when it ends ---

def test_a_target_ends_training(ready):
    made = job_spec({**FLOWERS, "validation_split": 0.2}, {"type": "adam", "lr": 0.01}, epochs=500,
                    target={"metric": "val_accuracy", "value": 0.8})
    job = ready.train(made)
    assert job["stop_reason"] == "target_reached" and job["progress"]["epoch"] < 500
    values = series(ready, job, "val_accuracy")
    assert values[-1] >= 0.8 and all(v < 0.8 for v in values[:-1])


def test_a_target_of_a_loss_is_reached_from_above(ready):
    job = ready.train(job_spec(FLOWERS, {"type": "adam", "lr": 0.01}, epochs=500,
                               target={"metric": "loss", "value": 0.4}))
    values = series(ready, job, "loss")
    assert job["stop_reason"] == "target_reached" and values[-1] <= 0.4 and all(v > 0.4 for v in values[:-1])


def test_tolerance_ends_training_that_converged(ready):
    job = ready.train(job_spec(FLOWERS, {"type": "adam", "lr": 0.01}, epochs=2000, tolerance=1e-3))
    values = np.array(series(ready, job, "loss"))
    change = np.abs(np.diff(values))
    assert job["stop_reason"] == "converged" and change[-1] < 1e-3 and (change[:-1] >= 1e-3).all()


def test_a_time_budget_ends_training_and_warns(ready):
    job = ready.train(job_spec(FLOWERS, "adam", epochs=10_000_000, max_seconds=0.5))
    assert job["stop_reason"] == "time_budget"
    assert 0 < job["progress"]["epoch"] < 10_000_000 and job["progress"]["epoch"] == len(series(ready, job, "loss"))
    assert any(w["code"] == "time_budget" for w in job["warnings"])


def test_a_target_that_is_not_computed_is_refused(ready):
    made = job_spec(FLOWERS, "adam", target={"metric": "val_accuracy", "value": 0.8})
    reply = ready.post("/v1/jobs", json=made)
    assert reply.status_code == 422
    assert [e["pointer"] for e in reply.json()["errors"]] == ["/training/target/metric"]


# --- checkpoints ---

def test_keep_says_how_many_checkpoints_stay(ready):
    made = job_spec(FLOWERS, {"type": "adam", "lr": 0.01}, epochs=10_000_000, checkpoint={"every_seconds": 1, "keep": 4},
                    max_seconds=6.5)
    job = ready.train(made)
    kept = ready.get(f"/v1/jobs/{job['id']}/checkpoints").json()
    rows = kept.get("data", kept.get("checkpoints"))
    assert 4 <= len(rows) <= 5, "the last four, and the best where it is none of them"


# --- first weights ---

@pytest.fixture(scope="module")
def source(ready):
    return ready.train(job_spec(FLOWERS, {"type": "adam", "lr": 0.01}, epochs=5))


def test_init_from_takes_the_weights(ready, source):
    job = ready.train({**job_spec(FLOWERS, {"type": "sgd", "lr": 1e-12}, epochs=1), "init_from": source["id"]})
    np.testing.assert_allclose(flat(tensors(ready, job)), flat(tensors(ready, source, "best")), atol=1e-9)
    assert job["parent"] == source["id"]
    assert job["spec"]["init_from"] == {"job": source["id"], "checkpoint": "best"}
    assert any(w["code"] == "init_from" for w in job["warnings"])


def test_init_from_takes_what_fits(ready, source):
    made = job_spec(FLOWERS, {"type": "sgd", "lr": 1e-12}, epochs=1)
    made["layers"].insert(1, {"name": "between", "type": "dense", "units": 5, "activation": "relu"})
    made["init_from"] = {"job": source["id"], "checkpoint": "latest"}
    job = ready.train(made)
    theirs, ours = tensors(ready, source), tensors(ready, job)
    np.testing.assert_allclose(ours["hidden.weight"], theirs["hidden.weight"], atol=1e-9)
    np.testing.assert_allclose(ours["hidden.bias"], theirs["hidden.bias"], atol=1e-9)
    assert not np.allclose(ours["out.bias"], theirs["out.bias"], atol=1e-3)  # a layer is taken whole or not at all
    assert ours["out.weight"].shape == (3, 5) and theirs["out.weight"].shape == (3, 8)
    told = next(w["detail"] for w in job["warnings"] if w["code"] == "init_from")
    assert "hidden.weight" in told and "3x5 here, 3x8 there" in told and "between.weight (not there)" in told
    assert "out.bias (of the same layer)" in told


def test_init_from_outlives_its_source(make_daemon):
    daemon = make_daemon("--workers", "1")
    daemon.upload("flowers", data.flowers())
    source = daemon.train(job_spec(FLOWERS, {"type": "adam", "lr": 0.01}, epochs=5))
    weights = flat(tensors(daemon, source, "best"))
    busy = daemon.submit(job_spec(FLOWERS, "adam", epochs=10_000_000))
    job = daemon.submit({**job_spec(FLOWERS, {"type": "sgd", "lr": 1e-12}, epochs=1), "init_from": source["id"]})
    assert daemon.delete(f"/v1/jobs/{source['id']}").status_code == 204
    assert daemon.get(f"/v1/jobs/{source['id']}").status_code == 404
    assert daemon.post(f"/v1/jobs/{busy['id']}/cancel").status_code in (200, 202)
    ended = daemon.wait(job["id"])
    assert ended["status"] == "succeeded"
    np.testing.assert_allclose(flat(tensors(daemon, ended["id"])), weights, atol=1e-9)


@pytest.mark.parametrize("value,pointer", [({"job": "job_nothere"}, "/init_from/job"),
                                           ({"checkpoint": "ckpt_nothere"}, "/init_from/checkpoint"),
                                           ({"checkpoint": "third"}, "/init_from/checkpoint")])
def test_init_from_of_nothing_is_refused(ready, source, value, pointer):
    made = {**job_spec(FLOWERS, "adam"), "init_from": {"job": source["id"], **value}}
    reply = ready.post("/v1/jobs", json=made)
    assert reply.status_code == 422, reply.text
    assert [e["pointer"] for e in reply.json()["errors"]] == [pointer]


def test_init_from_without_a_common_layer_is_refused(ready, source):
    made = {"dataset": FLOWERS, "layers": [{"name": "other", "type": "dense", "units": 4},
                                           {"name": "last", "type": "dense", "units": "auto"}],
            "init_from": source["id"]}
    reply = ready.post("/v1/jobs", json=made)
    assert reply.status_code == 422 and "not there" in reply.text, json.dumps(reply.json())
