"""Warnings about what is allowed and is rarely meant."""

import random

import pytest

import data


def codes(daemon, spec):
    reply = daemon.post("/v1/jobs?dry_run=true", json=spec)
    assert reply.status_code == 200, reply.text
    return {w["code"]: w for w in reply.json()["warnings"]}


@pytest.fixture(scope="module")
def tables(daemon):
    r = random.Random(1)
    rows = [[i, 1000 - i, f"{r.gauss(0, 1):.5f}", f"{r.gauss(0, 1):.5f}", "ab"[i % 2]] for i in range(120)]
    daemon.upload("numbered", data.csv(["position", "user_id", "x", "y", "class"], rows))
    plain = [row[2:] for row in rows]
    daemon.upload("plain", data.csv(["x", "y", "class"], plain))
    daemon.upload("lonely", data.csv(["x", "y", "class"], plain + [["0.1", "0.2", "c"]]))
    daemon.upload("twice", data.csv(["x", "y", "class"], plain + plain))
    daemon.upload("dice", data.csv(["a", "b", "class"], [[i % 6, i // 6 % 6, "ab"[i % 2]] for i in range(120)]))
    return daemon


ADVICE = {"linear_layers", "across_steps", "always_right", "all_frozen", "long_warmup", "split_by_target",
          "single_member", "constant_target", "identifier", "duplicate_rows"}


def test_nothing_is_said_about_a_sound_spec(tables):
    assert not ADVICE & set(codes(tables, {"dataset": "plain", "target": "class", "layers": [8, 8]}))
    assert not ADVICE & set(codes(tables, {"dataset": "dice", "target": "class", "layers": [8]}))


def test_linear_layers_in_a_row(tables):
    linear, output = {"type": "dense", "units": 8, "activation": "linear"}, {"type": "dense", "units": "auto"}
    found = codes(tables, {"dataset": "plain", "target": "class", "layers": [8, linear, output]})["linear_layers"]
    assert "dense_2" in found["detail"] and "dense_3" in found["detail"]
    assert "linear_layers" not in codes(tables, {"dataset": "plain", "target": "class",
                                                 "layers": [linear, {"type": "activation", "activation": "relu"}]})


def test_output_layers_of_several_targets(tables):
    spec = {"dataset": "plain", "target": ["x", "class"], "layers": [8]}
    reply = tables.post("/v1/jobs?dry_run=true", json=spec).json()
    told = [w["detail"] for w in reply["warnings"] if w["code"] == "inferred" and w["pointer"] == "/layers"]
    assert len(told) == 1 and "output_1 to output_2" in told[0] and '"dense_1"' in told[0]
    assert "linear_layers" not in [w["code"] for w in reply["warnings"]]
    found = codes(tables, {**spec, "layers": [8, {"type": "dense", "units": 2}]})["linear_layers"]
    assert '"dense_2"' in found["detail"] and found["pointer"] == "/layers/1"


def test_a_convolution_along_the_wrong_axis(tables):
    conv, end = {"type": "conv1d", "filters": 4, "kernel_size": 2, "activation": "relu"}, ["flatten", 4]
    windows = {"name": "plain", "target": "class", "features": ["x", "y"], "window": {"rows": 5}}
    found = codes(tables, {"dataset": windows, "layers": [conv, *end]})["across_steps"]
    assert found["pointer"] == "/layers/0" and "conv2d" in found["detail"]
    assert "across_steps" in codes(tables, {"dataset": windows, "layers": [
        {"type": "gru", "units": 3, "return_sequences": True}, "tanh", conv, *end]})
    along = [{"type": "reshape", "shape": [1, 5, 2]}, {**conv, "type": "conv2d", "kernel_size": [3, 2]}, *end]
    assert "across_steps" not in codes(tables, {"dataset": windows, "layers": along})
    rows = {"name": "plain", "target": "class", "input_shape": [1, 2]}
    assert "across_steps" not in codes(tables, {"dataset": rows, "layers": [conv, *end]})


def test_a_metric_that_is_always_right(tables):
    spec = {"dataset": "plain", "target": "class", "layers": [8], "metrics": ["accuracy", "top_k"]}
    found = codes(tables, spec)["always_right"]
    assert found["pointer"] == "/metrics/1" and "2" in found["detail"]
    spec["metrics"][1] = {"type": "top_k", "k": 1}
    assert "always_right" not in codes(tables, spec)


def test_a_class_with_one_member(tables):
    found = codes(tables, {"dataset": "lonely", "target": "class", "layers": [8]})["single_member"]
    assert '"c"' in found["detail"] and found["pointer"] == "/target"


def test_a_network_without_a_trained_layer(tables):
    def frozen(**more):
        return {"type": "dense", "units": 2, "trainable": False, **more}
    spec = {"dataset": "plain", "target": "class", "layers": [frozen(activation="relu"), frozen()]}
    assert codes(tables, spec)["all_frozen"]["pointer"] == "/layers"
    spec["layers"][1]["trainable"] = True
    assert "all_frozen" not in codes(tables, spec)


def test_a_warmup_that_never_ends(tables):
    spec = {"dataset": "plain", "target": "class", "layers": [8], "epochs": 5, "lr_schedule": {"warmup_epochs": 5}}
    found = codes(tables, spec)["long_warmup"]
    assert found["pointer"] == "/lr_schedule/warmup_epochs" and "5 epochs" in found["detail"]
    spec["lr_schedule"]["warmup_epochs"] = 1
    assert "long_warmup" not in codes(tables, spec)


def test_groups_that_are_the_target(tables):
    found = codes(tables, {"dataset": {"name": "dice", "target": "a", "split_by": "a"}, "layers": [8]})
    assert '"a"' in found["split_by_target"]["detail"]
    assert "split_by_target" not in codes(tables, {"dataset": {"name": "dice", "target": "a", "split_by": "b"},
                                                   "layers": [8]})


def test_why_no_row_is_left_for_validation(tables):
    tables.upload("one", data.csv(["x", "who", "day", "y"], [[i * 0.37, 7, 1, i % 2] for i in range(40)]))
    for rule, word in (({"split_by": "who"}, "one \"who\" stay"), ({"order_by": "day"}, "rows of one time stay")):
        spec = {"dataset": {"name": "one", "target": "y", **rule}, "layers": [4]}
        assert word in codes(tables, spec)["no_validation_rows"]["detail"]
        spec["training"] = {"early_stopping": {"monitor": "val_loss"}}
        reply = tables.post("/v1/jobs", json=spec)
        assert reply.status_code == 422 and word.split()[-2] in reply.json()["errors"][0]["detail"], reply.text


def test_a_target_of_one_value(tables):
    tables.upload("flat", "x,y\n" + "".join(f"{i * 0.37},2.5\n" for i in range(30)))
    spec = {"dataset": {"name": "flat", "target": "y"}, "task": "regression", "layers": [4]}
    assert "r2" in codes(tables, spec)["constant_target"]["detail"]
    tables.upload("single", "x,y\n1,2.5\n")
    assert "constant_target" in codes(tables, {**spec, "dataset": {"name": "single", "target": "y"}})
    assert "constant_target" not in codes(tables, {**spec, "dataset": {"name": "flat", "target": "x"}})


def test_the_estimate_knows_the_test_rows(tables):
    def estimate(test):
        spec = {"dataset": {"name": "plain", "target": "class", "test_split": test}, "layers": [500],
                "training": {"batch_size": 8, "layer_stats": False}}
        return tables.post("/v1/jobs?dry_run=true", json=spec).json()["estimate"]["bytes"]
    assert estimate(0.2) > estimate(0.0) + 4 * 500 * 5, "at least another copy of the weights"


def test_identifiers(tables):
    spec = {"dataset": {"name": "numbered", "target": "class"}, "layers": [8]}
    reply = tables.post("/v1/jobs?dry_run=true", json=spec).json()
    named = {w["detail"].split('"')[1] for w in reply["warnings"] if w["code"] == "identifier"}
    assert named == {"position", "user_id"}
    spec["dataset"]["ignore"] = ["position", "user_id"]
    assert "identifier" not in codes(tables, spec)


def test_duplicates_across_the_split(tables):
    found = codes(tables, {"dataset": "twice", "target": "class", "layers": [8]})["duplicate_rows"]
    assert "validation rows" in found["detail"]
    assert "duplicate_rows" not in codes(tables, {"dataset": {"name": "twice", "target": "class", "validation_split": 0},
                                                  "layers": [8]})


def test_a_symmetric_start_and_a_function_without_derivative_are_refused(tables):
    zeros = {"type": "dense", "units": 8, "activation": "tanh", "kernel_initializer": "zeros"}
    body = tables.post("/v1/jobs", json={"dataset": "plain", "target": "class", "layers": [zeros]}).json()
    assert body["errors"][0]["code"] == "symmetric" and "allow_symmetric" in body["errors"][0]["detail"]
    for name in ("step", "sign"):
        step = {"type": "dense", "units": 8, "activation": name}
        body = tables.post("/v1/jobs", json={"dataset": "plain", "target": "class", "layers": [step]}).json()
        assert "slope 0" in body["errors"][0]["detail"] and "sigmoid" in body["errors"][0]["detail"], body
