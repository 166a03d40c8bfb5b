"""Every loss, weights of rows and classes, every metric, several targets, autoencoders, literal weights: their effect."""

import json
import math
import random

import pytest
import torch

import data

ADAM = {"type": "adam", "lr": 0.02}


def predict(daemon, job, rows):
    reply = daemon.post(f"/v1/jobs/{job['id']}/predict", json={"rows": rows})
    assert reply.status_code == 200, reply.text
    return reply.json()["predictions"]


def evaluate(daemon, job, **body):
    reply = daemon.post(f"/v1/jobs/{job['id']}/evaluate", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def weights(daemon, job):
    return daemon.get(f"/v1/jobs/{job['id']}/weights?format=npz&checkpoint=latest").content


def parameters(daemon, job):
    reply = daemon.get(f"/v1/jobs/{job['id']}/weights?format=json&checkpoint=latest")
    assert reply.status_code == 200, reply.text
    return reply.json()


def faults(daemon, spec):
    reply = daemon.post("/v1/jobs", json=spec)
    assert reply.status_code == 422, reply.text
    return {e["pointer"]: e for e in reply.json()["errors"]}


def noisy(rows=600, seed=5):
    """y is x plus a noise that is larger above than below; a tenth of the rows are wild; n counts events of rate e^x."""
    r = random.Random(seed)
    out = []
    for i in range(rows):
        x = r.uniform(-1, 1)
        y = x + r.expovariate(2)
        wild = y + 30 if i % 10 == 0 else y
        rate, n, p = math.exp(1 + x), 0, r.random()
        level = math.exp(-rate)
        total = level
        while total < p:
            n += 1
            level *= rate / n
            total += level
        out.append([f"{x:.4f}", f"{y:.4f}", f"{wild:.4f}", n])
    return data.csv(["x", "y", "wild", "n"], out)


def rare(rows=600, seed=6):
    """One row in twelve is of the class yes, and the two overlap."""
    r = random.Random(seed)
    out = []
    for i in range(rows):
        yes = i % 12 == 0
        out.append([f"{r.gauss(1.2 if yes else 0, 1):.4f}", f"{r.gauss(1.2 if yes else 0, 1):.4f}",
                    "yes" if yes else "no", int(yes), 0 if i % 3 == 0 else 1])
    return data.csv(["a", "b", "label", "bit", "w"], out)


@pytest.fixture(scope="module")
def noise(daemon):
    daemon.upload("noise", noisy())
    return "noise"


@pytest.fixture(scope="module")
def unbalanced(daemon):
    daemon.upload("rare", rare())
    return "rare"


def fit(daemon, target, loss, features=("x",), **more):
    spec = {"dataset": "noise", "target": target, "features": list(features), "layers": [16], "loss": loss,
            "epochs": 60, "optimizer": ADAM, **more}
    return daemon.train(spec)


# --- losses of numbers ---

def value(daemon, job, x):
    return predict(daemon, job, [{"x": x}])[0]["value"]


def test_mae_and_huber_shrug_off_wild_rows(daemon, noise):
    squares = value(daemon, fit(daemon, "wild", "mse"), 0.0)
    absolute = value(daemon, fit(daemon, "wild", "mae"), 0.0)
    huber = value(daemon, fit(daemon, "wild", {"type": "huber", "delta": 0.5}), 0.0)
    assert squares > 2.5 and absolute < 1 and huber < 1, (squares, absolute, huber)
    assert abs(absolute - 0.38) < 0.25  # the median of the noise is ln 2 / 2, and a tenth of the rows above it


def test_a_quantile_has_its_share_of_rows_below(daemon, noise):
    low = fit(daemon, "y", {"type": "quantile", "q": 0.1})
    high = fit(daemon, "y", {"type": "quantile", "q": 0.9})
    assert low["spec"]["loss"] == {"type": "quantile", "q": 0.1}
    rows = [line.split(",") for line in noisy().splitlines()[1:]]
    for job, share in ((low, 0.1), (high, 0.9)):
        values = [p["value"] for p in predict(daemon, job, [{"x": float(r[0])} for r in rows])]
        below = sum(float(r[1]) < v for r, v in zip(rows, values)) / len(rows)
        assert abs(below - share) < 0.08, (share, below)
    assert value(daemon, high, 0.3) > value(daemon, low, 0.3) + 0.5


def test_poisson_predicts_the_rate(daemon, noise):
    job = fit(daemon, "n", "poisson")
    for x in (-0.8, 0.0, 0.8):
        assert abs(value(daemon, job, x) - math.exp(1 + x)) < 0.2 * math.exp(1 + x)
    metrics = evaluate(daemon, job, split="all")["metrics"]
    assert 0 < metrics["r2"] < 1 and metrics["rmse"] < 3
    assert job["spec"]["dataset"]["target_scale"] == "none"


def test_losses_are_in_the_units_of_the_target(daemon, noise):
    """The same data a thousand times larger: mae grows likewise, huber with its delta too, and with it by the square."""
    text = noisy().splitlines()
    large = "\n".join([text[0], *(",".join([r.split(",")[0], repr(1000 * float(r.split(",")[1])), *r.split(",")[2:]])
                                  for r in text[1:])]) + "\n"
    daemon.upload("large", large)
    for loss, scaled, power in (("mae", "mae", 1), ({"type": "huber", "delta": 0.2}, {"type": "huber", "delta": 200}, 2)):
        small = fit(daemon, "y", loss)
        big = fit(daemon, "y", scaled, dataset="large")
        ratio = big["metrics"]["last"]["loss"] / small["metrics"]["last"]["loss"]
        assert abs(ratio / 1000 ** power - 1) < 0.02, (loss, ratio)


# --- losses of classes ---

def test_hinge_of_two_and_of_three_classes(daemon, unbalanced):
    daemon.upload("rings", data.rings())
    two = daemon.train({"dataset": "rings", "target": "side", "layers": [16], "loss": "hinge", "epochs": 80,
                        "optimizer": ADAM, "metrics": ["accuracy", "auc"]})
    assert two["metrics"]["last"]["val_accuracy"] > 0.9 and two["metrics"]["last"]["val_auc"] > 0.95
    assert two["model"]["layers"][-1]["output_shape"] == [1]
    inside, outside = predict(daemon, two, [{"x": 0.1, "y": 0.1}, {"x": 1.5, "y": 0.1}])
    assert inside["label"] == "in" and outside["label"] == "out" and inside["margin"] * outside["margin"] < 0
    daemon.upload("flowers", data.flowers())
    three = daemon.train({"dataset": "flowers", "target": "species", "layers": [16], "loss": "hinge", "epochs": 60,
                          "optimizer": ADAM})
    assert three["metrics"]["last"]["accuracy"] > 0.9
    [row] = predict(daemon, three, [{"sepal_length": 5, "sepal_width": 3.4, "petal_length": 1.5, "petal_width": 0.2}])
    assert row["label"] == "setosa" and set(row["margins"]) == {"setosa", "versicolor", "virginica"}


@pytest.mark.parametrize("loss, target", [("cross_entropy", "label"), ("bce", "bit")])
def test_smoothing_keeps_a_network_from_being_sure(daemon, unbalanced, loss, target):
    spec = {"dataset": "rare", "target": target, "features": ["a", "b"], "layers": [8], "epochs": 40, "optimizer": ADAM}
    sure = daemon.train({**spec, "loss": loss})
    smooth = daemon.train({**spec, "loss": {"type": loss, "label_smoothing": 0.4}})
    far = [{"a": -4, "b": -4}]
    rows = [predict(daemon, job, far)[0] for job in (sure, smooth)]
    no = [r["probabilities"]["no"] if loss == "cross_entropy" else 1 - r["probability"] for r in rows]
    assert no[0] > 0.97 and 0.7 < no[1] < 0.9, no
    assert smooth["spec"]["loss"] == {"type": loss, "label_smoothing": 0.4}
    assert sure["spec"]["loss"] == loss


def test_class_weights_weigh_the_smoothed_loss_of_a_row(daemon, unbalanced):
    """sum of w[label] ((1 - s) nll[label] + s / C sum of nll) / sum of w[label]; PyTorch weighs the second sum class by
    class, which is the same where the weights are equal."""
    s, weights = 0.3, {"no": 1.0, "yes": 5.0}
    spec = {"dataset": "rare", "target": "label", "features": ["a", "b"], "layers": [8], "epochs": 2, "optimizer": ADAM,
            "loss": {"type": "cross_entropy", "label_smoothing": s}}
    lines = [line.split(",") for line in rare().splitlines()]
    column = {name: i for i, name in enumerate(lines[0])}
    rows = [{"a": float(row[column["a"]]), "b": float(row[column["b"]])} for row in lines[1:]]
    labels = [row[column["label"]] for row in lines[1:]]
    for given in (weights, {"no": 2.0, "yes": 2.0}):
        job = daemon.train({**spec, "class_weights": given})
        p = [[row["probabilities"][c] for c in ("no", "yes")] for row in predict(daemon, job, rows)]
        y = torch.tensor([("no", "yes").index(label) for label in labels])
        logp, w = torch.tensor(p).double().log(), torch.tensor([given["no"], given["yes"]]).double()
        each = -(1 - s) * logp.gather(1, y[:, None])[:, 0] - s / 2 * logp.sum(1)
        ours = ((w[y] * each).sum() / w[y].sum()).item()
        theirs = torch.nn.functional.cross_entropy(logp, y, weight=w, label_smoothing=s).item()
        loss = evaluate(daemon, job, split="all")["loss"]
        assert loss == pytest.approx(ours, abs=1e-5)
        assert (loss == pytest.approx(theirs, abs=1e-5)) == (given is not weights)


def test_kl_div_learns_a_distribution(daemon):
    r = random.Random(3)
    rows = []
    for _ in range(400):
        x = r.uniform(-1, 1)
        e = [math.exp(x), math.exp(-x), 1]
        rows.append([f"{x:.5f}", *(f"{v / sum(e):.6f}" for v in e)])
    daemon.upload("shares", data.csv(["x", "up", "down", "flat"], rows))
    spec = {"dataset": "shares", "target": ["up", "down", "flat"], "loss": "kl_div", "layers": [16], "epochs": 60,
            "optimizer": ADAM}
    job = daemon.train(spec)
    assert job["metrics"]["last"]["loss"] < 0.01
    [row] = predict(daemon, job, [{"x": 1.0}])
    total = math.exp(1) + math.exp(-1) + 1
    assert abs(row["probabilities"]["up"] - math.exp(1) / total) < 0.05
    assert abs(sum(row["probabilities"].values()) - 1) < 1e-5
    daemon.upload("noshares", data.csv(["x", "up", "down"], [[1, 0.5, 0.7], [2, 0.5, 0.5], [3, 0.2, 0.8]]))
    fault = faults(daemon, {**spec, "dataset": "noshares", "target": ["up", "down"]})["/loss"]
    assert "row 1" in fault["detail"] and "1.2" in fault["detail"]


# --- weights ---

def test_class_weights_find_the_rare_class(daemon, unbalanced):
    spec = {"dataset": "rare", "target": "label", "features": ["a", "b"], "layers": [8], "epochs": 40,
            "optimizer": ADAM, "metrics": ["accuracy", "recall_macro"]}
    plain = daemon.train(spec)
    balanced = daemon.train({**spec, "class_weights": "balanced"})
    named = daemon.train({**spec, "class_weights": {"yes": 11}})
    recall = [evaluate(daemon, job, split="all")["metrics"]["recall_macro"] for job in (plain, balanced, named)]
    assert recall[1] > recall[0] + 0.1 and recall[2] > recall[0] + 0.1, recall
    same = daemon.train({**spec, "class_weights": {"yes": 1, "no": 1}})
    assert weights(daemon, same) == weights(daemon, plain)


def test_rows_of_weight_0_are_as_if_they_were_not_there(daemon, unbalanced):
    """Their targets may be anything: not a bit changes."""
    lines = rare().splitlines()
    flipped = [lines[0]]
    for line in lines[1:]:
        a, b, label, bit, w = line.split(",")
        flipped.append(",".join([a, b, label if w != "0" else "no" if label == "yes" else "yes",
                                 bit if w != "0" else str(1 - int(bit)), w]))
    spec = {"target": "label", "features": ["a", "b"], "layers": [8], "epochs": 5, "sample_weight": "w",
            "stratify": False, "validation_split": 0}
    daemon.upload("flipped", "\n".join(flipped) + "\n")
    one = daemon.train({"dataset": "rare", **spec})
    # another file is split in another order: so compare the file with itself, weights in and out of the loss
    two = daemon.train({"dataset": "rare", **spec})
    assert weights(daemon, one) == weights(daemon, two)
    without = daemon.train({"dataset": "rare", **{k: v for k, v in spec.items() if k != "sample_weight"}})
    assert weights(daemon, one) != weights(daemon, without)
    # all rows in one batch, in the order of the file: the table's hash then plays no part but for the order
    whole = {**spec, "shuffle": False, "batch_size": 600, "epochs": 20}
    kept = daemon.train({"dataset": "rare", **whole})
    changed = daemon.train({"dataset": "flipped", **whole})
    assert parameters(daemon, kept)["tensors"] == parameters(daemon, changed)["tensors"]
    assert "w" not in json.dumps(kept["spec"]["dataset"]["features"])


def test_a_weight_of_2_is_the_row_twice(daemon):
    rows = [[i / 10, (i * i % 7) / 3, 1 + (i % 3 == 0)] for i in range(30)]
    twice = [r for r in rows for _ in range(r[2])]
    daemon.upload("weighted", data.csv(["x", "y", "w"], rows))
    daemon.upload("twice", data.csv(["x", "y", "w"], [[r[0], r[1], 1] for r in twice]))
    spec = {"target": "y", "layers": [4], "loss": "mse", "scale": "none", "target_scale": "none", "epochs": 50,
            "shuffle": False, "batch_size": 1000, "validation_split": 0, "sample_weight": "w", "optimizer": "sgd",
            "lr": 0.05}
    one, two = (daemon.train({"dataset": name, **spec}) for name in ("weighted", "twice"))
    assert math.isclose(one["metrics"]["last"]["loss"], two["metrics"]["last"]["loss"], rel_tol=1e-4)


# --- metrics ---

def test_metrics_are_their_definitions(daemon, unbalanced):
    spec = {"dataset": "rare", "target": "label", "features": ["a", "b"], "layers": [8], "epochs": 20, "optimizer": ADAM,
            "class_weights": "balanced",
            "metrics": ["accuracy", "precision_macro", "recall_macro", "f1_macro", "auc", {"type": "top_k", "k": 1}]}
    job = daemon.train(spec)
    assert job["spec"]["metrics"][-1] == {"type": "top_k", "k": 1}
    last = job["metrics"]["last"]
    assert "auc" not in last and last["top_k"] == last["accuracy"] and last["val_top_k"] == last["val_accuracy"]
    reply = evaluate(daemon, job, split="all")
    (nn, ny), (yn, yy) = reply["confusion"]["counts"]
    assert reply["confusion"]["labels"] == ["no", "yes"]
    metrics = reply["metrics"]
    precision = [nn / (nn + yn), yy / (yy + ny)]
    recall = [nn / (nn + ny), yy / (yy + yn)]
    f1 = [2 * p * r / (p + r) for p, r in zip(precision, recall)]
    for name, parts in (("precision_macro", precision), ("recall_macro", recall), ("f1_macro", f1)):
        assert math.isclose(metrics[name], sum(parts) / 2, rel_tol=1e-12), name
    rows = [line.split(",") for line in rare().splitlines()[1:]]
    scores = [p["probabilities"]["yes"] for p in predict(daemon, job, [{"a": float(r[0]), "b": float(r[1])}
                                                                          for r in rows])]
    yes = [s for s, r in zip(scores, rows) if r[2] == "yes"]
    no = [s for s, r in zip(scores, rows) if r[2] == "no"]
    pairs = sum((y > n) + (y == n) / 2 for y in yes for n in no) / (len(yes) * len(no))
    assert abs(metrics["auc"] - pairs) < 1e-4


def test_the_best_weights_by_a_metric_of_classes(daemon, unbalanced):
    job = daemon.train({"dataset": "rare", "target": "label", "features": ["a", "b"], "layers": [8], "epochs": 15,
                        "metrics": ["f1_macro", "auc"], "early_stopping": {"monitor": "val_auc"}})
    series = daemon.get(f"/v1/jobs/{job['id']}/metrics?names=val_auc").json()
    values = (series.get("series") or series)["val_auc"]["value"]
    assert job["metrics"]["best"]["name"] == "val_auc" and job["metrics"]["best"]["value"] == max(values)


# --- several targets ---

def mixed(rows=300, seed=8):
    r = random.Random(seed)
    out = []
    for _ in range(rows):
        a, b = r.uniform(-1, 1), r.uniform(-1, 1)
        out.append([f"{a:.4f}", f"{b:.4f}", "high" if a + b > 0 else "low", f"{3 * a - b + 5:.4f}", int(a > 0), int(b > 0)])
    return data.csv(["a", "b", "kind", "amount", "left", "top"], out)


def test_a_class_and_a_number_at_once(daemon):
    daemon.upload("mixed", mixed())
    spec = {"dataset": "mixed", "target": ["kind", "amount"], "features": ["a", "b"], "layers": [16], "epochs": 60,
            "optimizer": ADAM}
    job = daemon.train(spec)
    last = job["metrics"]["last"]
    assert last["val_accuracy_kind"] > 0.9 and last["val_r2_amount"] > 0.95
    assert math.isclose(last["loss"], last["loss_kind"] + last["loss_amount"], rel_tol=1e-9)
    [row] = predict(daemon, job, [{"a": 0.5, "b": 0.5}])
    assert row["kind"]["label"] == "high" and abs(row["amount"]["value"] - 6) < 0.4
    reply = evaluate(daemon, job, split="all")
    assert reply["metrics"]["accuracy_kind"] > 0.9 and "rmse_amount" in reply["metrics"]
    heads = job["spec"]["model"]["heads"]
    assert [h["loss"] for h in heads] == ["cross_entropy", "mse"]
    again = daemon.train(daemon.get(f"/v1/jobs/{job['id']}/spec").json())
    assert weights(daemon, again) == weights(daemon, job) and again["spec"]["model"] == job["spec"]["model"]


def test_heads_written_out_with_weights_and_a_monitor(daemon):
    daemon.upload("mixed", mixed())
    job = daemon.train({"dataset": {"name": "mixed", "features": ["a", "b"]},
                        "model": {"layers": [16], "heads": [{"target": "kind", "weight": 0.0},
                                                            {"target": "amount", "loss": "mae"}]},
                        "epochs": 40, "optimizer": ADAM, "early_stopping": {"monitor": "val_mae_amount"}})
    last = job["metrics"]["last"]
    assert job["metrics"]["best"]["name"] == "val_mae_amount"
    assert math.isclose(last["loss"], last["loss_amount"], rel_tol=1e-9)
    assert last["val_r2_amount"] > 0.9


def test_several_yes_or_no_under_one_loss(daemon):
    daemon.upload("mixed", mixed())
    job = daemon.train({"dataset": "mixed", "target": ["left", "top"], "features": ["a", "b"], "loss": "bce",
                        "layers": [16], "epochs": 60, "optimizer": ADAM, "metrics": ["accuracy", "f1_macro", "auc"]})
    assert job["model"]["layers"][-1]["output_shape"] == [2]
    assert job["metrics"]["last"]["val_accuracy"] > 0.9 and job["metrics"]["last"]["val_auc"] > 0.95
    [row] = predict(daemon, job, [{"a": 0.7, "b": -0.7}])
    assert row["values"] == {"left": 1, "top": 0} and row["probabilities"]["left"] > 0.9


# --- autoencoders ---

def test_an_autoencoder_gives_back_its_input(daemon):
    r = random.Random(4)
    rows = []
    for _ in range(300):
        u, v = r.gauss(0, 1), r.gauss(0, 1)
        rows.append([f"{100 + 10 * u:.3f}", f"{u - v:.3f}", f"{5 * v:.3f}", f"{u + v:.3f}"])
    daemon.upload("plane", data.csv(["p", "q", "r", "s"], rows))
    job = daemon.train({"dataset": "plane", "target": "features", "layers": [{"type": "dense", "units": 2}],
                        "epochs": 120, "optimizer": ADAM})
    assert job["model"]["layers"][-1]["output_shape"] == [4] and job["metrics"]["last"]["val_r2"] > 0.98
    on, off = predict(daemon, job, [{"p": 110, "q": 1, "r": 0, "s": 1}, {"p": 110, "q": -9, "r": 0, "s": 9}])
    assert abs(on["reconstruction"]["p"] - 110) < 2 and abs(on["reconstruction"]["q"] - 1) < 0.3
    assert off["error"] > 20 * on["error"]
    assert evaluate(daemon, job, split="all")["metrics"]["r2"] > 0.98


# --- literal weights ---

def test_weights_written_out(daemon):
    daemon.upload("pair", data.csv(["a", "b", "y"], [[1, 2, 3.5], [0, 1, 0.25], [1, 0, 1.5]]))
    spec = {"dataset": "pair", "target": "y", "loss": "mse", "scale": "none", "target_scale": "none",
            "validation_split": 0, "epochs": 1, "optimizer": {"type": "sgd", "lr": 1e-30},
            "layers": [{"type": "dense", "units": 2, "weights": [[1, 2], [0.5, -1]], "biases": [0, 1]},
                       {"type": "dense", "units": 1, "weights": [[2, 3]], "use_bias": False}]}
    job = daemon.train(spec)
    [row] = predict(daemon, job, [{"a": 1, "b": 2}])
    assert row["value"] == 2 * 5 + 3 * -0.5
    spec["layers"][0]["weights"] = [[1, 2, 3], [4, 5, 6]]
    assert "2 inputs" in faults(daemon, spec)["/layers/0"]["detail"]
    spec["layers"][0]["weights"] = [[1, 2], [4, "x"]]
    assert "/layers/0/weights/1/1" in faults(daemon, spec)


# --- refusals ---

@pytest.mark.parametrize("change, pointer, word", [
    ({"target": "y", "loss": {"type": "quantile", "q": 1.0}}, "/loss/q", "below 1"),
    ({"target": "y", "loss": {"type": "huber", "delta": 0}}, "/loss/delta", "above 0"),
    ({"target": "y", "loss": "hinge"}, "/loss", "classification"),
    ({"target": "x", "loss": "poisson"}, "/loss", "negative"),
    ({"target": "y", "loss": "kl_div"}, "/loss", "several target columns"),
    ({"target": "y", "class_weights": "balanced"}, "/class_weights", "classes"),
    ({"target": "y", "sample_weight": "x"}, "/sample_weight", "at least 0"),
    ({"target": "y", "sample_weight": "nope"}, "/sample_weight", "no column"),
    ({"target": "y", "metrics": ["auc"]}, "/metrics/0", "mse"),
    ({"target": ["y", "y"]}, "/target/1", "already"),
    ({"target": ["y", "nope"]}, "/target/1", "no column"),
    ({"target": "features", "loss": "poisson"}, "/loss", "autoencoder"),
])
def test_refusals_explain(daemon, noise, change, pointer, word):
    spec = {"dataset": "noise", "layers": [4], **change}
    found = faults(daemon, spec)
    assert pointer in found and word in found[pointer]["detail"], found


def test_a_list_of_one_head_has_plain_names(daemon):
    daemon.upload("mixed", mixed())
    job = daemon.train({"dataset": "mixed", "features": ["a", "b"], "layers": [8], "heads": [{"target": "amount"}],
                        "epochs": 5, "early_stopping": {"monitor": "val_rmse"}})
    assert job["model"]["layers"][-1]["name"] == "output_1" and "val_rmse" in job["metrics"]["last"]
    assert "rmse" in evaluate(daemon, job, split="all")["metrics"]
    assert "value" in predict(daemon, job, [{"a": 0, "b": 0}])[0]


@pytest.mark.parametrize("heads, pointer", [
    ([{"loss": "mse"}], "/heads/0/target"), ([{"target": []}], "/heads/0/target"), ([], "/heads"),
    ([{"target": "y"}, {"loss": "mse"}], "/heads/1/target"), ([{"target": "y", "weight": -1}], "/heads/0/weight"),
    ([{"target": "y", "loss": {"type": "huber", "delta": -1}}], "/heads/0/loss/delta"),
    ([{"target": ["y", "wild"], "loss": "mse"}], "/heads/0/loss"), ("y", "/heads"), ([7], "/heads/0"),
    ([{"target": "y", "task": "regression"}], "/heads/0/task"),
])
def test_heads_that_make_no_sense(daemon, noise, heads, pointer):
    assert pointer in faults(daemon, {"dataset": "noise", "layers": [4], "heads": heads})
