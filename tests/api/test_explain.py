"""Why this answer: the error signals and input gradients of one row, against differences and against PyTorch."""

import gzip
import json
import math
import random
import struct

import pytest

import data

torch = pytest.importorskip("torch")

FLOWER = {"sepal_length": 5.7, "sepal_width": 3.1, "petal_length": 3.3, "petal_width": 0.9}
HOUSE = {"size": 100.0, "age": 30.0, "district": "south"}


@pytest.fixture(scope="module")
def flowers(daemon):
    daemon.upload("flowers", data.flowers())
    return daemon.train({"dataset": "flowers", "target": "species", "epochs": 20, "optimizer": {"type": "adam", "lr": 0.01},
                         "layers": [{"type": "dense", "units": 12, "activation": "tanh"},
                                    {"type": "dropout", "rate": 0.2}]})


@pytest.fixture(scope="module")
def houses(daemon):
    daemon.upload("houses", data.houses())
    return daemon.train({"dataset": "houses", "target": "price", "layers": [{"type": "dense", "units": 16, "activation": "tanh"}],
                         "epochs": 40, "optimizer": {"type": "adam", "lr": 0.01}})


def explain(daemon, job, body, status=200):
    reply = daemon.post(f"/v1/jobs/{job['id']}/explain", json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def by_column(explanation):
    return {c["column"]: c for c in explanation["columns"]}


def test_the_explanation_of_a_class(daemon, flowers):
    e = explain(daemon, flowers, {"row": FLOWER, "target": "setosa"})
    assert (e["object"], e["job"], e["target"], e["target_assumed"]) == ("explanation", flowers["id"], "setosa", False)
    [plain] = daemon.post(f"/v1/jobs/{flowers['id']}/predict", json=[FLOWER]).json()["predictions"]
    assert e["prediction"] == {"label": plain["label"], "probability": plain["probability"]}
    assert math.isclose(e["loss"], -math.log(plain["probabilities"]["setosa"]), rel_tol=1e-4)
    # the error signal of the output is what the probabilities say: p - 1 for the true class, p for the others
    output = e["layers"][0]
    signals = [u["delta"] for u in output["units"]]
    expected = [p - (name == "setosa") for name, p in plain["probabilities"].items()]
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(signals, expected))
    assert math.isclose(output["delta_norm"], math.sqrt(sum(s * s for s in signals)), rel_tol=1e-6)
    hidden = next(layer for layer in e["layers"] if layer["name"] == "dense_1")
    assert hidden["units_count"] == 12 and len(hidden["units"]) == 12
    influences = [c["influence"] for c in e["columns"]]
    assert set(by_column(e)) == set(FLOWER) and influences == sorted(influences, reverse=True)


def test_the_target_may_be_in_the_row_or_assumed(daemon, flowers):
    given = explain(daemon, flowers, {"row": FLOWER, "target": "virginica"})
    assert explain(daemon, flowers, {"row": {**FLOWER, "species": "virginica"}}) == given
    assumed = explain(daemon, flowers, {"row": FLOWER})
    assert assumed["target_assumed"] is True and assumed["target"] == assumed["prediction"]["label"]


def test_gradients_agree_with_differences_of_predictions(daemon, flowers, houses):
    def class_loss(row):
        [p] = daemon.post(f"/v1/jobs/{flowers['id']}/predict", json=[row]).json()["predictions"]
        return -math.log(p["probabilities"]["virginica"])

    def price_loss(row):
        [p] = daemon.post(f"/v1/jobs/{houses['id']}/predict", json=[row]).json()["predictions"]
        return (p["value"] - 250.0) ** 2

    for job, row, target, loss, step in ((flowers, FLOWER, "virginica", class_loss, 0.02),
                                         (houses, HOUSE, 250.0, price_loss, 1.0)):
        e = explain(daemon, job, {"row": row, "target": target})
        assert math.isclose(e["loss"], loss(row), rel_tol=1e-4)
        for name, column in by_column(e).items():
            if column["kind"] != "number":
                continue
            up, down = {**row, name: row[name] + step}, {**row, name: row[name] - step}
            numeric = (loss(up) - loss(down)) / (2 * step)
            assert math.isclose(column["gradient"], numeric, rel_tol=0.02, abs_tol=1e-3), (name, column, numeric)


def test_the_nudge_test_bears_the_gradient_out(daemon, flowers, houses):
    for job, row, target in ((flowers, FLOWER, "virginica"), (houses, HOUSE, 250.0)):
        e = explain(daemon, job, {"row": row, "target": target})
        numbers = {c["column"] for c in e["columns"] if c["kind"] == "number"}
        assert {n["column"] for n in e["nudges"]} == numbers
        for nudge in e["nudges"]:
            gradient = by_column(e)[nudge["column"]]["gradient"]
            assert math.isclose(nudge["predicted"], gradient * nudge["change"], rel_tol=1e-5, abs_tol=1e-12)
            assert math.isclose(nudge["actual"], nudge["predicted"], rel_tol=0.1, abs_tol=1e-5 * max(1, e["loss"]))


def test_categories_have_a_gradient_for_each_level(daemon, houses):
    e = explain(daemon, houses, {"row": HOUSE, "target": 250.0})
    district = by_column(e)["district"]
    assert district["kind"] == "category" and district["value"] == "south"
    assert set(district["gradients"]) == {"north", "south", "old town"}
    # a dearer district brings the prediction up: where it is too low, that lowers the loss
    low = explain(daemon, houses, {"row": HOUSE, "target": 2000.0})
    gradients = by_column(low)["district"]["gradients"]
    assert gradients["old town"] < gradients["north"]
    missing = explain(daemon, houses, {"row": {**HOUSE, "age": None}, "target": 250.0})
    assert by_column(missing)["age"]["value"] is None and by_column(missing)["age"]["gradient"] == 0


def tensors(daemon, job):
    raw = daemon.get(f"/v1/jobs/{job['id']}/weights.safetensors").content
    size, = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + size])
    out = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        begin, end = info["data_offsets"]
        out[name] = torch.frombuffer(bytearray(raw[8 + size + begin:8 + size + end]), dtype=torch.float32).reshape(info["shape"])
    return out


def test_signals_agree_with_pytorch(daemon, flowers):
    """The same network from the exported weights: autograd gives the same error signal of every unit."""
    w = {name: t.double() for name, t in tensors(daemon, flowers).items()}
    text = [line.split(",") for line in data.flowers().splitlines()[1:]]
    e = explain(daemon, flowers, {"row": FLOWER, "target": "versicolor"})
    # the scaling is not exported as numbers: get it from two gradients' ratio, influence = |dL/dx scaled|
    columns = by_column(e)
    names = list(FLOWER)
    scale = {n: abs(columns[n]["gradient"]) / columns[n]["influence"] for n in names}
    means = {n: sum(float(row[i]) for row in text) / len(text) for i, n in enumerate(names)}
    x = torch.tensor([[(FLOWER[n] - means[n]) * scale[n] for n in names]], dtype=torch.float64, requires_grad=True)
    z = x @ w["dense_1.weight"].T + w["dense_1.bias"]
    z.retain_grad()
    hidden = next(layer for layer in e["layers"] if layer["name"] == "dense_1")
    ours = torch.tensor([u["value"] for u in hidden["units"]], dtype=torch.float64)
    # the means are of the training rows alone, so shift x until z is ours
    with torch.no_grad():
        shift = torch.linalg.lstsq(w["dense_1.weight"], (ours - z[0])[:, None]).solution[:, 0]
    x = (x.detach() + shift).requires_grad_(True)
    z = x @ w["dense_1.weight"].T + w["dense_1.bias"]
    z.retain_grad()
    a = torch.tanh(z)
    logits = a @ w["dense_2.weight"].T + w["dense_2.bias"]
    logits.retain_grad()
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([1]))
    loss.backward()
    assert math.isclose(e["loss"], loss.item(), rel_tol=1e-5)
    for layer, grad in (("dense_2", logits.grad[0]), ("dense_1", z.grad[0])):
        units = next(entry for entry in e["layers"] if entry["name"] == layer)["units"]
        assert all(math.isclose(u["delta"], g, rel_tol=1e-4, abs_tol=1e-7) for u, g in zip(units, grad.tolist()))
    for n, g in zip(names, x.grad[0].tolist()):
        assert math.isclose(columns[n]["gradient"], g * scale[n], rel_tol=1e-4, abs_tol=1e-7)


@pytest.mark.parametrize("body, code", [
    ({}, "invalid_rows"), ({"row": 3}, "invalid_rows"), ({"row": FLOWER, "rows": []}, "unknown_field"),
    ({"row": {"sepal_length": 1}}, "invalid_rows"), ({"row": FLOWER, "target": "rose"}, "invalid_target"),
])
def test_refusals(daemon, flowers, body, code):
    assert explain(daemon, flowers, body, status=422)["code"] == code


def test_a_value_needs_its_target(daemon, houses):
    assert explain(daemon, houses, {"row": HOUSE}, status=422)["code"] == "target_required"
    assert explain(daemon, houses, {"row": HOUSE, "target": "dear"}, status=422)["code"] == "invalid_target"


def test_batch_normalization_is_explained_as_it_predicts(daemon):
    daemon.upload("flowers", data.flowers())
    job = daemon.train({"dataset": "flowers", "target": "species", "epochs": 15, "optimizer": {"type": "adam", "lr": 0.01},
                        "layers": [{"type": "dense", "units": 12}, {"type": "batch_norm"},
                                   {"type": "activation", "activation": "tanh"}]})
    [plain] = daemon.post(f"/v1/jobs/{job['id']}/predict", json=[FLOWER]).json()["predictions"]
    e = explain(daemon, job, {"row": FLOWER, "target": "setosa"})
    assert math.isclose(e["loss"], -math.log(plain["probabilities"]["setosa"]), rel_tol=1e-4)
    for nudge in e["nudges"]:
        assert math.isclose(nudge["actual"], nudge["predicted"], rel_tol=0.1, abs_tol=1e-5)


def test_pixels_are_explained_as_one_column(daemon):
    images = bytes([0, 0, 8, 3]) + struct.pack(">III", 40, 4, 4) + bytes((i * 7 + j * (i % 2)) % 251 for i in range(40) for j in range(16))
    labels = bytes([0, 0, 8, 1]) + struct.pack(">I", 40) + bytes(i % 2 for i in range(40))
    reply = daemon.post("/v1/datasets", files={"name": (None, "tiles"), "inputs": ("i.gz", gzip.compress(images)),
                                               "targets": ("t.gz", gzip.compress(labels))})
    assert reply.status_code in (200, 201), reply.text
    job = daemon.train({"dataset": "tiles", "target": "target", "layers": [8], "epochs": 5})
    e = explain(daemon, job, {"row": list(range(16)), "target": 1})
    [column] = e["columns"]
    assert (column["kind"], column["count"], len(column["largest"])) == ("array", 16, 10) and e["nudges"] == []
    sizes = [abs(p["gradient"]) for p in column["largest"]]
    assert sizes == sorted(sizes, reverse=True) and all(p["value"] == p["index"] for p in column["largest"])
    hard = daemon.get(f"/v1/jobs/{job['id']}/examples?limit=1").json()["data"][0]
    assert len(hard["row"]["inputs"]) == 4 and hard["row"]["inputs"][0][0] == (hard["index"] * 7) % 251


def test_an_autoencoder_explains_its_own_input(daemon):
    daemon.upload("flowers", data.flowers())
    job = daemon.train({"dataset": {"name": "flowers", "target": "features", "ignore": ["species"]}, "epochs": 10,
                        "layers": [{"type": "dense", "units": 2, "activation": "tanh"}]})
    e = explain(daemon, job, {"row": FLOWER})
    assert e["loss"] > 0 and len(e["columns"]) == 4 and e["target_assumed"] is False
    for nudge in e["nudges"]:  # the target moves with the input: the gradient by the input alone is not all of it
        assert math.isfinite(nudge["predicted"]) and math.isfinite(nudge["actual"])


def test_windows(daemon):
    r = random.Random(7)
    rows, level = [], 0.0
    for t in range(300):
        level = 0.8 * level + r.gauss(0, 1)
        rows.append([f"{level:.4f}", f"{r.gauss(0, 1):.4f}", "up" if level > 0 else "down"])
    daemon.upload("series", data.csv(["a", "b", "state"], rows))
    job = daemon.train({"dataset": {"name": "series", "target": "state", "window": {"rows": 5, "stride": 1}},
                        "layers": [{"type": "gru", "units": 6}], "epochs": 4})
    window = [{"a": float(a), "b": float(b)} for a, b, _ in rows[10:15]]
    e = explain(daemon, job, {"row": window, "target": "up"})
    columns = by_column(e)
    assert all(c["kind"] == "sequence" and len(c["gradients"]) == 5 for c in columns.values())
    hard = daemon.get(f"/v1/jobs/{job['id']}/examples?limit=3").json()["data"]
    for entry in hard:
        assert [row["a"] for row in entry["row"]] == [float(rows[i][0]) for i in range(entry["index"] - 4, entry["index"] + 1)]
        loss = explain(daemon, job, {"row": [{k: row[k] for k in "ab"} for row in entry["row"]], "target": entry["target"]})["loss"]
        assert math.isclose(loss, entry["loss"], rel_tol=1e-3)
