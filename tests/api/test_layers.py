"""What goes on in each layer: the figures, their series, and that looking changes nothing."""

import math
import time

import pytest

import data
from smooth import SPECS, fingerprint, table

SPEC = {"dataset": "flowers", "target": "species", "layers": [16, {"type": "dense", "units": 8, "activation": "tanh"}],
        "epochs": 30, "optimizer": {"type": "sgd", "lr": 0.1}}


@pytest.fixture(scope="module")
def flowers(daemon):
    daemon.upload("flowers", data.flowers())
    daemon.upload("smooth", table())
    return daemon


def layers(daemon, job, **query):
    reply = daemon.get(f"/v1/jobs/{job['id']}/layers", params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_every_layer_has_its_figures(flowers):
    job = flowers.train(SPEC)
    body = layers(flowers, job)
    assert (body["object"], body["job"], body["step"]) == ("layers", job["id"], job["progress"]["step"])
    network, first, second, last = body["layers"]
    assert network["name"] == "network"
    assert [layer["activation"] for layer in (first, second, last)] == ["relu", "tanh", "linear"]
    assert [layer["hidden"] for layer in (first, second, last)] == [True, True, False]
    for layer in (first, second, last):
        now = layer["now"]
        assert set(now) >= {"gradient_norm", "clipped_norm", "weight_norm", "update_ratio", "delta_norm", "mean", "spread"}
        assert now["gradient_norm"] == now["clipped_norm"] > 0  # nothing was clipped
        assert 0 < now["update_ratio"] < 1 and now["weight_norm"] > 0 and now["spread"] > 0
    assert 0 <= first["now"]["dead"] < 1 and "saturated" not in first["now"]
    assert 0 <= second["now"]["saturated"] < 1 and "dead" not in second["now"]
    # the whole is the sum of its parts
    assert math.isclose(network["now"]["gradient_norm"] ** 2,
                        sum(layer["now"]["gradient_norm"] ** 2 for layer in (first, second, last)), rel_tol=1e-9)
    # plain gradient descent: the update is the rate times the gradient; biases are in the gradient, and not in the ratio
    assert first["now"]["update_ratio"] * first["now"]["weight_norm"] <= 0.1 * first["now"]["gradient_norm"] * 1.0001


@pytest.mark.parametrize("kind", ["simple_rnn", "lstm", "gru"])
def test_the_error_signal_through_time(flowers, kind):
    """Recurrent layers alone have it; the last step's is not smaller than what is left of it at the first."""
    spec = {**SPEC, "epochs": 5, "layers": [{"type": "reshape", "shape": [4, 1]}, {"type": kind, "units": 5}]}
    _, memory, out = layers(flowers, flowers.train(spec))["layers"]
    now = memory["now"]
    assert 0 < now["delta_first_step"] < now["delta_last_step"]
    assert math.isclose(now["delta_step_ratio"], now["delta_first_step"] / now["delta_last_step"], rel_tol=1e-9)
    assert not any(figure.endswith("_step") or figure == "delta_step_ratio" for figure in out["now"])


def test_series_begin_at_the_first_step_and_can_be_thinned(flowers):
    job = flowers.train(SPEC)
    series = layers(flowers, job)["layers"][0]["series"]
    steps = series["step"]
    assert steps[:4] == [1, 2, 4, 8] and steps == sorted(set(steps)) and steps[-1] == job["progress"]["steps"]
    assert len(series["loss"]) == len(series["epoch"]) == len(steps) and series["loss"][-1] < series["loss"][0]
    thin = layers(flowers, job, max_points=3)["layers"][0]["series"]
    assert len(thin["step"]) == 3 and thin["step"][0] == 1 and thin["step"][-1] == steps[-1]
    [one] = layers(flowers, job, layer="dense_2")["layers"]
    assert one["name"] == "dense_2"
    reply = flowers.get(f"/v1/jobs/{job['id']}/layers?layer=dense_9")
    assert reply.status_code == 404 and "dense_2" in reply.json()["allowed"]
    assert flowers.get(f"/v1/jobs/{job['id']}/layers?max_points=1").status_code == 400
    assert flowers.get("/v1/jobs/job_nowhere/layers").status_code == 404


def test_clipping_shows(flowers):
    spec = {name: value for name, value in SPEC.items() if name != "epochs"}
    job = flowers.train({**spec, "training": {"epochs": 3, "clip_grad_norm": 0.01}})
    series = layers(flowers, job)["layers"][0]["series"]
    for before, after in zip(series["gradient_norm"], series["clipped_norm"]):
        assert before > 0.01 and math.isclose(after, 0.01, rel_tol=1e-3)


def test_looking_changes_no_bit_and_can_be_switched_off(flowers):
    for spec in SPECS.values():
        prints = []
        for on in (True, False):
            job = flowers.train({**spec, "training": {**spec.get("training", {}), "layer_stats": on}})
            prints.append(fingerprint(flowers, job["id"]))
            assert bool(layers(flowers, job)["layers"]) is on
        assert prints[0] == prints[1]
    off = flowers.get(f"/v1/jobs/{job['id']}/diagnosis").json()
    assert off["healthy"] is None and [f["code"] for f in off["findings"]] == ["not_measured"]


def test_figures_are_the_same_for_any_number_of_threads(flowers):
    spec = {**SPECS["classes"], "training": {"epochs": 3, "batch_size": 100}}
    one, two = (layers(flowers, flowers.train({**spec, "threads": n}))["layers"] for n in (1, 2))
    assert one == two


def test_a_paused_job_goes_on_with_its_series(flowers):
    spec = {**SPECS["classes"], "training": {"epochs": 400, "batch_size": 20}}
    whole = layers(flowers, flowers.train(spec))["layers"]
    job = flowers.submit(spec)["id"]
    flowers.wait(job, lambda j: j["progress"]["step"] > 20 or j["status"] == "succeeded")
    if flowers.post(f"/v1/jobs/{job}/pause").status_code == 200:
        flowers.wait(job, lambda j: j["status"] in ("paused", "succeeded"))
        flowers.post(f"/v1/jobs/{job}/resume")
    assert layers(flowers, flowers.wait(job))["layers"] == whole


def test_figures_go_with_the_job(flowers):
    job = flowers.train(SPEC)
    assert flowers.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert flowers.get(f"/v1/jobs/{job['id']}/layers").status_code == 404


def test_figures_can_be_seen_while_training(flowers):
    job = flowers.submit({**SPECS["classes"], "training": {"epochs": 1_000_000, "batch_size": 100}})["id"]
    flowers.wait(job, lambda j: j["progress"]["step"] > 50)
    deadline = time.monotonic() + 20
    while not layers(flowers, {"id": job})["layers"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert flowers.get(f"/v1/jobs/{job}/diagnosis").status_code == 200
    flowers.post(f"/v1/jobs/{job}/cancel")
    flowers.wait(job)
