"""Job specs that cannot be trained, or not even be read: refused with the place of every fault, and nothing stored."""

import json

import pytest

from conftest import Daemon
from data import csv, flowers, houses
from refusals import inventory, refused

GOOD = {"dataset": "flowers", "target": "species", "layers": [4]}


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    d = Daemon(tmp_path_factory.mktemp("daemon") / "data", "--threads", "2", "--memory", "64M").start()
    d.upload("flowers", flowers())
    d.upload("houses", houses())
    d.upload("lonely", csv(["x", "kind"], [[i, "same"] for i in range(30)]))
    yield d
    assert d.running and d.stop() == 0, d.log()


@pytest.fixture(autouse=True)
def nothing_changes(there):
    before = inventory(there)
    yield
    assert there.running
    assert inventory(there) == before


def deep(n):
    return b'{"layers":' + (n - 1) * b"[" + (n - 1) * b"]" + b"}"


# id: (body, code, line, column or None where it does not matter)
UNREADABLE = {
    "nothing": (b"", "invalid_json", None, None),
    "blanks": (b" \r\n\t ", "invalid_json", None, None),
    "only a brace": (b"{", "invalid_json", 1, None),
    "comma too many in an array": (b"[1,]", "invalid_json", 1, 4),
    "comma too many in an object": (b'{"seed": 1,\n}', "invalid_json", 2, 1),
    "NaN": (b'{"seed": NaN}', "invalid_json", 1, None),
    "Infinity": (b'{"seed":\n Infinity}', "invalid_json", 2, None),
    "leading zero": (b'{"seed": 01}', "invalid_json", 1, None),
    "plus sign": (b'{"seed": +1}', "invalid_json", 1, 10),
    "bare point": (b'{"lr": .1}', "invalid_json", 1, None),
    "comment": (b'{"seed": 1 // one\n}', "invalid_json", 1, 12),
    "single quotes": (b"{'seed': 1}", "invalid_json", 1, 2),
    "no quotes": (b"{seed: 1}", "invalid_json", 1, None),
    "python's None": (b'{"name": None}', "invalid_json", 1, None),
    "byte order mark": (b"\xef\xbb\xbf{}", "invalid_utf8", 1, 1),
    "utf-16": ('{"seed": 1}'.encode("utf-16"), "invalid_utf8", 1, 1),
    "byte ff": (b'{\n"name": "\xff"}', "invalid_utf8", 2, 10),
    "overlong utf-8": (b'{"name": "\xc0\xaf"}', "invalid_utf8", 1, 11),
    "surrogate in utf-8": (b'{"name": "\xed\xa0\x80"}', "invalid_utf8", 1, 11),
    "lone surrogate escaped": (b'{"name": "\\ud800"}', "invalid_json", 1, None),
    "nul in a value": (b'{"name": "a\\u0000b"}', "invalid_json", 1, None),
    "nul in a name": (b'{"a\\u0000b": 1}', "invalid_json", 1, None),
    "control character": (b'{"name": "a\x01b"}', "invalid_json", 1, None),
    "same name twice": (b'{"seed": 1, "seed": 2}', "duplicate_key", 1, None),
    "33 levels": (deep(33), "too_deep", 1, None),
    "2048 levels": (deep(2048), "too_deep", 1, None),
    "a million brackets": (1_000_000 * b"[", "too_deep", 1, 33),
    "50000 members": (json.dumps({f"k{i}": 1 for i in range(50_000)}).encode(), "too_many_members", 1, None),
    "something after the end": (b"{} x", "invalid_json", 1, 4),
    "nul after the end": (b"{}\0", "invalid_json", 1, None),
    "two objects": (b"{}{}", "invalid_json", 1, None),
    "1e400": (b'{"lr": 1e400}', "invalid_json", 1, None),
    "2^63": (b'{"seed": 9223372036854775808}', "invalid_json", 1, None),
    "a form as of curl -d": (b"dataset=flowers&target=species", "invalid_json", 1, None),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_unreadable(there, name):
    body, code, line, column = UNREADABLE[name]
    problem = refused(there, there.post("/v1/jobs", data=body), 400, code)
    if line:
        assert problem["line"] == line and (column or problem["column"]) == problem["column"], problem
        assert f"line {line}, column" in problem["detail"]


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"123", b"null", b"true", b'[{"dataset": "flowers"}]'])
def test_no_object(there, body):
    refused(there, there.post("/v1/jobs", data=body), 422, "invalid_type", [""])


def test_larger_than_a_spec_may_be(there):
    reply = there.post("/v1/jobs", data=b'{"name": "' + (1 << 20) * b"a" + b'"}')
    assert refused(there, reply, 413, "body_too_large")["limit"] == 1 << 20


def layer(**members):
    return {"layers": [{"type": "dense", "units": 4, **members}]}


def adam(**members):
    return {"optimizer": {"type": "adam", **members}}


# id: (members that make GOOD a bad spec, {pointer: code of the fault there}, a word that the answer must have)
UNUSABLE = {
    "unknown member": ({"learning_rte": 1}, {"/learning_rte": "unknown_field"}, '"suggestion":"lr"'),
    "unknown member of a layer": (layer(unit=3), {"/layers/0/unit": "unknown_field"}, '"suggestion":"units"'),
    "unknown member of training": ({"training": {"epoch": 3}}, {"/training/epoch": "unknown_field"}, "epochs"),
    "name that is a path in a pointer": ({"a/b~c": 1}, {"/a~1b~0c": "unknown_field"}, ""),
    "lr string": ({"lr": "0.1"}, {"/lr": "wrong_type"}, "must be a number"),
    "lr null": ({"lr": None}, {"/lr": "wrong_type"}, ""),
    "lr true": ({"lr": True}, {"/lr": "wrong_type"}, ""),
    "lr array": ({"lr": [0.1]}, {"/lr": "wrong_type"}, ""),
    "lr zero": ({"lr": 0}, {"/lr": "out_of_range"}, "above 0"),
    "lr below zero": ({"lr": -1}, {"/lr": "out_of_range"}, ""),
    "lr enormous": ({"lr": 1e30}, {"/lr": "out_of_range"}, ""),
    "epochs zero": ({"epochs": 0}, {"/epochs": "out_of_range"}, "at least 1"),
    "epochs below zero": ({"epochs": -1}, {"/epochs": "out_of_range"}, ""),
    "epochs broken": ({"epochs": 1.5}, {"/epochs": "wrong_type"}, "integer"),
    "epochs 10.0": ({"epochs": 10.0}, {"/epochs": "wrong_type"}, "10.0"),
    "epochs enormous": ({"epochs": 10**9}, {"/epochs": "out_of_range"}, ""),
    "batch_size zero": ({"batch_size": 0}, {"/batch_size": "out_of_range"}, ""),
    "batch_size broken": ({"batch_size": 1.5}, {"/batch_size": "wrong_type"}, ""),
    "batch_size string": ({"batch_size": "all"}, {"/batch_size": "wrong_type"}, ""),
    "no layers": ({"layers": []}, {"/layers": "bad_length"}, ""),
    "10000 layers": ({"layers": 10_000 * [4]}, {"/layers": "bad_length"}, ""),
    "layers no list": ({"layers": "64,32"}, {"/layers": "wrong_type"}, ""),
    "units zero": ({"layers": [0]}, {"/layers/0": "out_of_range"}, ""),
    "units below zero": ({"layers": [4, -5]}, {"/layers/1": "out_of_range"}, ""),
    "units broken": ({"layers": [1.5]}, {"/layers/0": "wrong_type"}, ""),
    "units 2^31": ({"layers": [2**31]}, {"/layers/0": "out_of_range"}, "2147483648"),
    "units whose product overflows": ({"layers": [2**62, 2**62]},
                                      {"/layers/0": "out_of_range", "/layers/1": "out_of_range"}, ""),
    "more memory than a job may have": ({"layers": [3000, 3000]}, {"/model": "exceeds_memory"}, "64 MiB"),
    "weights that no array can hold": ({"layers": [1_000_000, 1_000_000]}, {"/layers/1": "too_large"}, ""),
    "unknown layer": ({"layers": [{"type": "dens", "units": 4}]}, {"/layers/0/type": "unknown_name"}, '"dense"'),
    "unknown activation": (layer(activation="rellu"), {"/layers/0/activation": "unknown_name"}, '"relu"'),
    "unknown optimizer": ({"optimizer": "adamm"}, {"/optimizer": "unknown_name"}, '"suggestion":"adam"'),
    "unknown loss": ({"loss": "mseq"}, {"/loss": "unknown_name"}, '"suggestion":"mse"'),
    "unknown metric": ({"metrics": ["acuracy"]}, {"/metrics/0": "unknown_name"}, '"accuracy"'),
    "activation without a slope": (layer(activation="step"), {"/layers/0/activation": "not_differentiable"}, "sigmoid"),
    "bce for three classes": ({"loss": "bce"}, {"/loss": "incompatible"}, "cross_entropy"),
    "mse for classes": ({"loss": "mse"}, {"/loss": "incompatible"}, "cross_entropy"),
    "classes for a price": ({"dataset": "houses", "target": "price", "loss": "cross_entropy"},
                            {"/loss": "incompatible"}, ""),
    "regression of a word": ({"task": "regression"}, {"/task": "incompatible"}, ""),
    "last layer of the wrong width": ({"layers": [{"type": "dense", "units": 5, "name": "out"}]},
                                      {"/layers/0/units": "incompatible"}, "auto"),
    "dropout of all": ({"layers": [4, {"type": "dropout", "rate": 1.0}]}, {"/layers/1/rate": "out_of_range"}, ""),
    "dropout below zero": ({"layers": [4, {"type": "dropout", "rate": -0.1}]}, {"/layers/1/rate": "out_of_range"},
                           "-0.1\""),
    "dropout string": ({"layers": [4, {"type": "dropout", "rate": "1"}]}, {"/layers/1/rate": "wrong_type"}, ""),
    "dropout without a rate": ({"layers": [4, {"type": "dropout"}]}, {"/layers/1/rate": "required"}, ""),
    "beta of one": (adam(betas=[0.9, 1.0]), {"/optimizer/betas/1": "out_of_range"}, ""),
    "one beta": (adam(betas=[0.9]), {"/optimizer/betas": "bad_length"}, ""),
    "eps zero": (adam(eps=0), {"/optimizer/eps": "out_of_range"}, ""),
    "weight_decay below zero": (adam(weight_decay=-1), {"/optimizer/weight_decay": "out_of_range"}, ""),
    "momentum of one": ({"optimizer": {"type": "sgd", "momentum": 1}}, {"/optimizer/momentum": "out_of_range"}, ""),
    "betas of sgd": ({"optimizer": {"type": "sgd", "betas": [0.9, 0.99]}}, {"/optimizer/betas": "unknown_field"}, ""),
    "validation_split of all": ({"validation_split": 1}, {"/validation_split": "out_of_range"}, ""),
    "validation_split above all": ({"validation_split": 1.5}, {"/validation_split": "out_of_range"}, ""),
    "splits that leave nothing": ({"dataset": {"name": "flowers", "validation_split": 0.6, "test_split": 0.6}},
                                  {"/dataset/validation_split": "out_of_range"}, ""),
    "seed below zero": ({"seed": -1}, {"/seed": "out_of_range"}, ""),
    "seed 2^53": ({"seed": 2**53}, {"/seed": "out_of_range"}, "9007199254740991"),
    "seed string": ({"seed": "x"}, {"/seed": "wrong_type"}, ""),
    "seed broken": ({"seed": 1.5}, {"/seed": "wrong_type"}, ""),
    "clip_grad_norm zero": ({"training": {"clip_grad_norm": 0}}, {"/training/clip_grad_norm": "out_of_range"}, ""),
    "clip_grad_norm below zero": ({"training": {"clip_grad_norm": -1}}, {"/training/clip_grad_norm": "out_of_range"},
                                  ""),
    "dataset that is not there": ({"dataset": "flower"}, {"/dataset": "dataset_not_found"}, '"suggestion":"flowers"'),
    "dataset of a bad name": ({"dataset": "../flowers"}, {"/dataset": "bad_value"}, ""),
    "no dataset": ({"dataset": None}, {"/dataset": "wrong_type"}, ""),
    "target that is not there": ({"target": "specis"}, {"/target": "unknown_column"}, '"suggestion":"species"'),
    "feature that is not there": ({"features": ["sepal_length", "colour"]}, {"/features/1": "unknown_column"}, ""),
    "all columns ignored": ({"ignore": ["sepal_length", "sepal_width", "petal_length", "petal_width"]},
                            {"/dataset/features": "no_features"}, ""),
    "target of one class": ({"dataset": "lonely", "target": "kind"}, {"/target": "single_class"}, ""),
    "more threads than the budget": ({"threads": 3}, {"/threads": "out_of_range"}, "2"),
    "a million threads": ({"threads": 1_000_000}, {"/threads": "out_of_range"}, ""),
    "threads below zero": ({"threads": -1}, {"/threads": "out_of_range"}, ""),
    "name of 10 kB": ({"name": 10_000 * "n"}, {"/name": "bad_length"}, ""),
    "name empty": ({"name": ""}, {"/name": "bad_length"}, ""),
    "name with a slash": ({"name": "a/b"}, {"/name": "bad_value"}, ""),
    "name of html": ({"name": "<script>"}, {"/name": "bad_value"}, ""),
    "name with a bell": ({"name": "a\u0007b"}, {"/name": "bad_value"}, ""),
    "name that turns the text around": ({"name": "a\u202eb"}, {"/name": "bad_value"}, ""),
    "id": ({"id": "job_x"}, {"/id": "read_only"}, ""),
    "status": ({"status": "succeeded"}, {"/status": "read_only"}, ""),
    "owner": ({"owner": "me"}, {"/owner": "read_only"}, ""),
    "constant weights": ({"layers": [{"type": "dense", "units": 4, "kernel_initializer": "zeros"}, 4]},
                         {"/layers/0/kernel_initializer": "symmetric"}, "allow_symmetric"),
    "early stopping on nothing": ({"validation_split": 0, "training": {"early_stopping": {"monitor": "val_loss",
                                                                                          "patience": 3}}},
                                  {"/training/early_stopping/monitor": "unknown_name"}, ""),
    "both of two forms": ({"model": {"layers": [4]}}, {"/layers": "conflict"}, ""),
    "all at once": ({"epochs": 0, "lr": -1, "layers": [0], "target": "x", "nmae": "y"},
                    {"/epochs": "out_of_range", "/lr": "out_of_range", "/layers/0": "out_of_range",
                     "/target": "unknown_column", "/nmae": "unknown_field"}, "5 faults"),
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize("query", ["", "?dry_run=true"], ids=["", "dry"])
def test_unusable(there, name, query):
    members, faults, word = UNUSABLE[name]
    problem = refused(there, there.post("/v1/jobs" + query, json={**GOOD, **members}), 422, "invalid_spec", word=word)
    assert {e["pointer"]: e["code"] for e in problem["errors"]} == faults, problem["errors"]


@pytest.mark.parametrize("member", ["dataset", "target", "layers"])
def test_required(there, member):
    spec = {k: v for k, v in GOOD.items() if k != member}
    problem = refused(there, there.post("/v1/jobs", json=spec), 422, "invalid_spec")
    assert [e["pointer"].replace("/name", "") for e in problem["errors"]] == [f"/{member}"]


def test_a_hundred_faults_are_bounded(there):
    spec = {**GOOD, **{f"unknown_{i}_{40 * 'x'}": i for i in range(3000)}}
    problem = refused(there, there.post("/v1/jobs", json=spec), 422, "invalid_spec")
    assert len(problem["errors"]) == 100


# Odd but legal: what ours does with it, and that it says so.
LEGAL = {
    "no validation rows": ({"validation_split": 0}, None),
    "largest seed": ({"seed": 2**53 - 1}, None),
    "whole budget": ({"threads": 2}, None),
    "softmax on a hidden layer": ({"layers": [{"type": "dense", "units": 4, "activation": "softmax"}, 3]}, None),
    "threads left to the server": ({"threads": 0}, None),
    "batch larger than the data": ({"batch_size": 100_000}, "batch_size"),
    "learning_rate": ({"optimizer": {"type": "adam", "learning_rate": 0.01}}, "lr"),
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal_but_told(there, name):
    members, word = LEGAL[name]
    reply = there.post("/v1/jobs?dry_run=true", json={**GOOD, **members})
    assert reply.status_code == 200, reply.text
    if word:
        assert any(word in json.dumps(w) for w in reply.json()["warnings"]), reply.json()["warnings"]


FORMS = {
    "no data": ({"spec": (None, json.dumps(GOOD))}, 422, "missing_part"),
    "no spec": ({"data": ("f.csv", flowers())}, 422, "missing_part"),
    "spec no json": ({"spec": (None, "{"), "data": ("f.csv", flowers())}, 400, "invalid_json"),
    "spec no object": ({"spec": (None, "[]"), "data": ("f.csv", flowers())}, 422, "invalid_type"),
    "dataset of a bad name": ({"spec": (None, json.dumps({**GOOD, "dataset": "Bad Name"})),
                               "data": ("f.csv", flowers())}, 422, "invalid_name"),
    "data of nothing": ({"spec": (None, json.dumps({**GOOD, "dataset": "new"})), "data": ("f.csv", "")}, 422,
                        "empty_dataset"),
    "data ragged": ({"spec": (None, json.dumps({**GOOD, "dataset": "new"})), "data": ("f.csv", "a,b\n1,2\n3\n")}, 400,
                    "ragged_row"),
    "dataset of a wrong type": ({"spec": (None, json.dumps({**GOOD, "dataset": 7})), "data": ("f.csv", flowers())}, 422,
                                "invalid_name"),
    "name of a wrong type": ({"spec": (None, json.dumps({**GOOD, "dataset": {"name": ["new"]}})),
                              "data": ("f.csv", flowers())}, 422, "invalid_name"),
    "part that is unknown": ({"spec": (None, json.dumps({**GOOD, "dataset": "new"})), "data": ("f.csv", flowers()),
                              "test": ("t.csv", flowers())}, 422, "unknown_part"),
    "bad spec with good data": ({"spec": (None, json.dumps({**GOOD, "dataset": "new", "epochs": 0})),
                                 "data": ("f.csv", flowers())}, 422, "invalid_spec"),
}


@pytest.mark.parametrize("name", FORMS)
def test_form(there, name):
    """Upload and train in one call: either both, or nothing."""
    parts, status, code = FORMS[name]
    refused(there, there.post("/v1/jobs", files=parts), status, code)


def test_form_without_a_boundary(there):
    reply = there.post("/v1/jobs", data=b"whatever", headers={"Content-Type": "multipart/form-data"})
    refused(there, reply, 400, "bad_form")


def test_init_from_a_job_that_is_not_there(there):
    reply = there.post("/v1/jobs", json={**GOOD, "init_from": {"job": "job_" + 26 * "0"}})
    problem = refused(there, reply, 422, "invalid_spec")
    assert problem["errors"][0]["pointer"].startswith("/init_from")
