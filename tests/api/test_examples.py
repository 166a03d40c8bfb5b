"""The hardest rows of a split: which they are, what was said of them, and how wrong it was."""

import math

import pytest

import data

SPEC = {"dataset": "flowers", "target": "species", "layers": [8], "epochs": 15,
        "optimizer": {"type": "adam", "lr": 0.01}}


@pytest.fixture(scope="module")
def flowers(daemon):
    daemon.upload("flowers", data.flowers())
    return daemon.train(SPEC)


def examples(daemon, job, status=200, **query):
    reply = daemon.get(f"/v1/jobs/{job['id']}/examples", params=query)
    assert reply.status_code == status, reply.text
    return reply.json()


def losses(daemon, job, entries):
    """The losses again, from predictions of the rows."""
    rows = [{k: v for k, v in e["row"].items() if k != "species"} for e in entries]
    predictions = daemon.post(f"/v1/jobs/{job['id']}/predict", json=rows).json()["predictions"]
    return [-math.log(p["probabilities"][e["target"]]) for e, p in zip(entries, predictions)], predictions


def test_the_hardest_rows(daemon, flowers):
    body = examples(daemon, flowers, sort="-loss", limit=5)
    assert (body["object"], body["split"], body["rows"], len(body["data"])) == ("list", "validation", 30, 5)
    text = [line.split(",") for line in data.flowers().splitlines()[1:]]
    again, predictions = losses(daemon, flowers, body["data"])
    for entry, loss, prediction in zip(body["data"], again, predictions):
        row = text[entry["index"]]
        assert entry["target"] == entry["row"]["species"] == row[-1]
        assert [entry["row"][n] for n in ("sepal_length", "petal_width")] == [float(row[0]), float(row[3])]
        assert math.isclose(entry["loss"], loss, rel_tol=1e-3)
        assert entry["prediction"] == {"label": prediction["label"], "probability": prediction["probability"]}
    order = [e["loss"] for e in body["data"]]
    assert order == sorted(order, reverse=True)


def test_all_rows_add_up_to_the_evaluation(daemon, flowers):
    for split, rows in (("train", 120), ("validation", 30)):
        body = examples(daemon, flowers, split=split, limit=1000)
        assert body["rows"] == len(body["data"]) == rows
        assert len({e["index"] for e in body["data"]}) == rows
        mean = sum(e["loss"] for e in body["data"]) / rows
        e = daemon.post(f"/v1/jobs/{flowers['id']}/evaluate", json={"split": split}).json()
        assert math.isclose(mean, e["loss"], rel_tol=1e-5)
        easiest = examples(daemon, flowers, split=split, sort="loss", limit=7)["data"]
        assert easiest == body["data"][::-1][:7]


def test_losses_of_values_are_in_their_unit(daemon):
    daemon.upload("houses", data.houses())
    job = daemon.train({"dataset": "houses", "target": "price", "layers": [16], "epochs": 30,
                        "optimizer": {"type": "adam", "lr": 0.01}})
    for entry in examples(daemon, job, limit=3)["data"]:
        assert entry["row"]["district"] in ("north", "south", "old town")
        assert math.isclose(entry["target"], entry["row"]["price"], rel_tol=1e-6)
        error = entry["prediction"]["value"] - entry["target"]
        assert math.isclose(entry["loss"], error * error, rel_tol=1e-2, abs_tol=1e-2)


def told(daemon, job, entries, without):
    """What a prediction of the same rows says."""
    rows = [{k: v for k, v in e["row"].items() if k != without} for e in entries]
    return daemon.post(f"/v1/jobs/{job['id']}/predict", json=rows).json()["predictions"]


def test_a_margin_is_told_as_it_is_predicted(daemon):
    daemon.upload("rings", data.rings())
    job = daemon.train({"dataset": "rings", "target": "side", "layers": [16], "loss": "hinge", "epochs": 20,
                        "optimizer": {"type": "adam", "lr": 0.01}})
    entries = examples(daemon, job, limit=8)["data"]
    predictions = told(daemon, job, entries, "side")
    assert [e["prediction"] for e in entries] == predictions and {p["label"] for p in predictions} <= {"in", "out"}
    row = {k: v for k, v in entries[0]["row"].items() if k != "side"}
    said = daemon.post(f"/v1/jobs/{job['id']}/explain", json={"row": row}).json()
    assert said["target_assumed"] is True and said["prediction"] == predictions[0]
    assert said["target"] == predictions[0]["label"]


def test_refusals(daemon, flowers):
    assert examples(daemon, flowers, status=400, sort="size")["code"] == "bad_query"
    assert examples(daemon, flowers, status=400, split="all")["code"] == "bad_query"
    assert examples(daemon, flowers, status=422, split="test")["code"] == "no_rows"
    examples(daemon, flowers, status=400, limit=0)
    examples(daemon, {"id": "job_nowhere"}, status=404)
