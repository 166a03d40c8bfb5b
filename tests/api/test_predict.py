"""Using a trained model: predictions for rows from outside, evaluations on rows of a dataset."""

import concurrent.futures
import csv as csvlib
import io
import json
import math

import pytest
import requests

import data

FLOWER = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
ORDER = list(FLOWER)


@pytest.fixture(scope="module")
def flowers(daemon):
    daemon.upload("flowers", data.flowers())
    return daemon.train({"dataset": "flowers", "target": "species", "layers": [16], "epochs": 60,
                         "optimizer": {"type": "adam", "lr": 0.01}})


@pytest.fixture(scope="module")
def houses(daemon):
    daemon.upload("houses", data.houses())
    return daemon.train({"dataset": "houses", "target": "price", "layers": [32, 16], "epochs": 120,
                         "optimizer": {"type": "adam", "lr": 0.01}})


def predict(daemon, job, body, **options):
    body = body if isinstance(body, (str, bytes)) else json.dumps(body)
    return daemon.post(f"/v1/jobs/{job['id']}/predict", data=body, **options)


# --- classes ---

def test_rows_as_objects_arrays_or_csv_are_the_same_rows(daemon, flowers):
    values = [FLOWER[name] for name in ORDER]
    first = predict(daemon, flowers, {"rows": [FLOWER]})
    assert first.status_code == 200, first.text
    first = first.json()
    assert (first["object"], first["job"]) == ("predictions", flowers["id"])
    assert first["checkpoint"] == flowers["checkpoints"]["latest"] and first["best"] is True
    [row] = first["predictions"]
    assert row["label"] == "setosa" and row["probability"] > 0.9
    assert row["probability"] == max(row["probabilities"].values())
    assert math.isclose(sum(row["probabilities"].values()), 1, abs_tol=1e-6)

    text = ",".join(ORDER) + "\n" + ",".join(map(str, values)) + "\n"
    shuffled = dict(reversed(FLOWER.items()))
    for body in ([FLOWER], [shuffled], [values], {"rows": [values]}, FLOWER, text, "\n " + text,
                 {"rows": [{**FLOWER, "species": "virginica"}]}):
        assert predict(daemon, flowers, body).json()["predictions"] == [row], body


def test_many_rows_are_predicted_as_each_by_itself(daemon, flowers):
    rows = [[4 + i % 40 / 10, 2 + i % 7 / 3, 1 + i % 53 / 10, i % 11 / 4] for i in range(700)]
    together = predict(daemon, flowers, rows).json()["predictions"]
    assert len(together) == len(rows)
    for i in (0, 1, 255, 256, 257, 511, 512, 699):
        assert predict(daemon, flowers, [rows[i]]).json()["predictions"] == [together[i]]


def test_predictions_as_csv(daemon, flowers):
    plain = predict(daemon, flowers, [FLOWER, FLOWER]).json()["predictions"]
    for reply in (predict(daemon, flowers, [FLOWER, FLOWER], params={"render": "csv"}),
                  predict(daemon, flowers, [FLOWER, FLOWER], headers={"Accept": "text/csv"})):
        assert reply.headers["Content-Type"].startswith("text/csv")
        table = list(csvlib.DictReader(io.StringIO(reply.text)))
        assert [r["species"] for r in table] == [p["label"] for p in plain]
        assert float(table[0]["p(setosa)"]) == plain[0]["probabilities"]["setosa"]


def test_classes_that_are_numbers_stay_numbers(daemon):
    daemon.upload("digits", data.csv(["a", "b", "digit"], [[i % 3, i % 5, (i % 3) * 10] for i in range(150)]))
    job = daemon.train({"dataset": "digits", "target": "digit", "task": "classification", "layers": [16], "epochs": 60,
                        "optimizer": {"type": "adam", "lr": 0.02}})
    [row] = predict(daemon, job, [[2, 1]]).json()["predictions"]
    assert row["label"] == 20 and list(row["probabilities"]) == ["0", "10", "20"]
    assert daemon.post(f"/v1/jobs/{job['id']}/evaluate").json()["confusion"]["labels"] == [0, 10, 20]


def test_names_that_need_quotes(daemon):
    names = ['a "b", c', "ü/ß", "line, one"]
    rows = [[i % 3, '"' + names[i % 3].replace('"', '""') + '"'] for i in range(150)]
    daemon.upload("names", data.csv(["x", "name"], rows))
    job = daemon.train({"dataset": "names", "target": "name", "layers": [16], "epochs": 60,
                        "optimizer": {"type": "adam", "lr": 0.02}})
    plain = predict(daemon, job, [[0], [1], [2]]).json()["predictions"]
    assert [row["label"] for row in plain] == names and set(plain[0]["probabilities"]) == set(names)
    reply = predict(daemon, job, [[0], [1], [2]], params={"render": "csv"})
    reply.encoding = "utf-8"
    table = list(csvlib.DictReader(io.StringIO(reply.text, newline="")))
    assert [row["name"] for row in table] == names
    assert float(table[0][f"p({names[0]})"]) == plain[0]["probability"]


def test_yes_or_no(daemon):
    text = data.rings().replace(",in\n", ",1\n").replace(",out\n", ",0\n").replace("side", "inside")
    daemon.upload("inside", text)
    job = daemon.train({"dataset": "inside", "target": "inside", "loss": "bce", "layers": [32], "epochs": 60,
                        "optimizer": {"type": "adam", "lr": 0.02}})
    near, far = predict(daemon, job, [{"x": 0, "y": 0}, {"x": 1.5, "y": 0}]).json()["predictions"]
    assert near["value"] == 1 and near["probability"] > 0.9, near
    assert far["value"] == 0 and far["probability"] < 0.1, far
    e = daemon.post(f"/v1/jobs/{job['id']}/evaluate").json()
    assert e["confusion"]["labels"] == [0, 1]
    counts = e["confusion"]["counts"]
    assert math.isclose(e["metrics"]["accuracy"], (counts[0][0] + counts[1][1]) / e["rows"])


# --- values ---

def test_values_come_in_the_unit_of_the_target(daemon, houses):
    rows = [{"size": 100, "age": 10, "district": "north"}, {"size": 100, "age": 10, "district": "old town"}]
    values = [p["value"] for p in predict(daemon, houses, rows).json()["predictions"]]
    assert abs(values[0] - (50 + 250 - 8)) < 40 and 40 < values[1] - values[0] < 140
    # a missing age is filled in, as it was in training
    missing = predict(daemon, houses, [{"size": 100, "age": None, "district": "north"}])
    assert missing.status_code == 200, missing.text


# --- many at once ---

def test_more_models_than_are_kept_at_once(daemon, flowers):
    """Each request is answered by its own model, whatever was loaded and dropped in between."""
    jobs = [daemon.train({"dataset": "flowers", "target": "species", "layers": [4], "epochs": 2, "seed": seed})
            for seed in range(7)]
    expected = [predict(daemon, job, [FLOWER]).json()["predictions"] for job in jobs]
    assert len({json.dumps(e) for e in expected}) == len(jobs)

    def ask(i):
        body = json.dumps([FLOWER])
        reply = requests.post(f"{daemon.url}/v1/jobs/{jobs[i % 7]['id']}/predict", data=body, timeout=60)
        return reply.json()["predictions"] == expected[i % 7]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(140)))


# --- what is refused ---

def test_faults_of_rows_are_all_named(daemon, houses, problem):
    reply = predict(daemon, houses, {"rows": [{"size": 100, "age": 10, "district": "norht"},
                                              {"size": "large", "age": 10, "district": "north"},
                                              {"age": 10, "district": "north"}]})
    assert reply == problem(422, "invalid_rows", "norht")
    pointers = [e["pointer"] for e in reply.json()["errors"]]
    assert "/rows/0/district" in pointers and "/rows/1/size" in pointers
    assert any(p.startswith("/rows/2") for p in pointers), pointers


@pytest.mark.parametrize("body, status", [
    ("", 400), ("   \n", 400), ("[1, 2", 400), ('{"rows": [}', 400), ('{"rows": 3}', 422),
    ('{"rows": [[1, 2]], "checkpoint": "best"}', 422), ("[[1, 2]]", 422), ("[[1, 2, 3, 4, 5]]", 422),
    ('[{"sepal_length": NaN}]', 400), ('[[1, 2, 3, "NaN"]]', 422), ('[[1, 2, 3, 1e999]]', 400), ("[3]", 422),
    ('[{"unknown": 1}]', 422), ("a,b\n1,2\n", 422), ("[[1,2,3,[4]]]", 422), ("null", 422),
])
def test_bodies_that_are_no_rows(daemon, flowers, body, status):
    reply = predict(daemon, flowers, body)
    assert reply.status_code == status, reply.text
    assert reply.headers["Content-Type"] == "application/problem+json" and reply.json()["detail"]


def test_too_many_rows_are_told_the_limit(daemon, flowers, problem):
    reply = predict(daemon, flowers, [[1, 2, 3, 4]] * 70000)
    assert reply == problem(413, "too_many_rows")
    assert reply.json()["limit"] == 65536


def test_numbers_beyond_a_float_are_never_a_prediction(daemon, houses, problem):
    rows = [{"size": 100, "age": 10, "district": "north"}, {"size": 1e300, "age": 10, "district": "north"}]
    reply = predict(daemon, houses, rows)
    assert reply.status_code == 422 and [e["pointer"][:7] for e in reply.json()["errors"]] == ["/rows/1"], reply.text


def test_unknown_names(daemon, flowers, problem):
    assert predict(daemon, {"id": "job_01arz3ndektsv4rrffq69g5fav"}, [FLOWER]) == problem(404, "not_found")
    assert predict(daemon, flowers, [FLOWER], params={"checkpoint": "x"}) == problem(400, "invalid_query", "best")
    assert predict(daemon, flowers, [FLOWER], params={"chekpoint": "best"}).status_code == 400


# --- evaluations ---

def test_an_evaluation_is_by_default_on_validation_rows(daemon, flowers):
    reply = daemon.post(f"/v1/jobs/{flowers['id']}/evaluate")
    assert reply.status_code == 200, reply.text
    e = reply.json()
    assert (e["split"], e["dataset"], e["rows"], e["excluded"]) == ("validation", "flowers", 30, 0)
    assert e["confusion"]["labels"] == ["setosa", "versicolor", "virginica"]
    counts = e["confusion"]["counts"]
    assert sum(map(sum, counts)) == 30 and [sum(row) for row in counts] == [10, 10, 10]  # stratified
    assert math.isclose(e["metrics"]["accuracy"], sum(counts[i][i] for i in range(3)) / 30)
    # the best epoch is the one with the smallest val_loss, and these are its weights
    assert math.isclose(e["loss"], flowers["metrics"]["best"]["value"], rel_tol=1e-12)


def test_the_parts_of_a_split_make_up_the_dataset(daemon, flowers):
    parts = {name: daemon.post(f"/v1/jobs/{flowers['id']}/evaluate", json={"split": name}).json()
             for name in ("train", "validation", "all")}
    assert [parts[n]["rows"] for n in parts] == [120, 30, 150]
    both = sum(parts[n]["rows"] * parts[n]["loss"] for n in ("train", "validation"))
    assert math.isclose(parts["all"]["loss"], both / 150, rel_tol=1e-9)


def test_an_evaluation_in_the_unit_of_the_target(daemon, houses):
    e = daemon.post(f"/v1/jobs/{houses['id']}/evaluate", json={}).json()
    assert e["confusion"] is None and e["metrics"]["r2"] > 0.9
    assert math.isclose(e["metrics"]["rmse"] ** 2, e["metrics"]["mse"], rel_tol=1e-9)
    assert math.isclose(e["loss"], e["metrics"]["mse"], rel_tol=1e-4)


def test_another_dataset_with_the_same_columns(daemon, flowers, problem):
    daemon.upload("meadow", data.flowers(rows=90, seed=5))
    url = f"/v1/jobs/{flowers['id']}/evaluate"
    e = daemon.post(url, json={"dataset": "meadow"}).json()
    assert (e["dataset"], e["split"], e["rows"]) == ("meadow", "all", 90)
    assert e["metrics"]["accuracy"] > 0.9 and sum(map(sum, e["confusion"]["counts"])) == 90
    assert daemon.post(url, json={"dataset": "meadow", "split": "train"}) == problem(422, "no_such_split", "all")
    # the order of the columns does not matter, nor that a class is missing; a row without its target is left out
    columns = ["species", *ORDER]
    rows = [["virginica", 6.6, 3.0, 5.6, 2.0], ["", 1, 2, 3, 4], ["setosa", 5, 3.4, 1.5, 0.2]] * 3
    daemon.upload("other", data.csv(columns, rows))
    e = daemon.post(url, json={"dataset": "other"}).json()
    assert (e["rows"], e["excluded"], e["metrics"]["accuracy"]) == (6, 3, 1.0)
    assert e["confusion"] == {"labels": ["setosa", "versicolor", "virginica"], "counts": [[3, 0, 0], [0] * 3, [0, 0, 3]]}
    # a class that the model never saw cannot be judged, and is named
    daemon.upload("strange", data.csv(columns, [*rows, ["tulip", 1, 2, 3, 4], ["tulip", 1, 2, 3, 4]]))
    reply = daemon.post(url, json={"dataset": "strange"})
    assert reply.status_code == 422 and "tulip" in reply.text, reply.text


def test_what_cannot_be_evaluated(daemon, flowers, houses, problem):
    url = f"/v1/jobs/{flowers['id']}/evaluate"
    assert daemon.post(url, json={"dataset": "meadows"}).status_code == 404
    assert daemon.post(url, json={"split": "tset"}) == problem(422, "invalid_split", "/split")
    assert daemon.post(url, json={"splits": "test"}) == problem(422, "unknown_field", "/splits")
    assert daemon.post(url, json={"split": "test"}).status_code == 422  # this job has no test rows
    assert daemon.post(url, data="[1]").status_code == 422
    assert daemon.post(url, json={"dataset": "houses"}).status_code == 422  # other columns


def test_replacing_the_dataset_does_not_change_what_a_job_is_judged_by(daemon):
    daemon.upload("rings", data.rings())
    job = daemon.train({"dataset": "rings", "target": "side", "layers": [16], "epochs": 40})
    url = f"/v1/jobs/{job['id']}/evaluate"
    before = daemon.post(url).json()
    daemon.upload("rings", data.rings(rows=200, seed=9))
    assert daemon.post(url).json() == before
    now = daemon.post(url, json={"dataset": "rings"}).json()
    assert (now["split"], now["rows"]) == ("all", 200)
