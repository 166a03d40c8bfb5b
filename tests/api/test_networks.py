"""Normalization, branches, frozen layers and attention through the API: what each does to training, and that PyTorch
takes the trained tensors and comes to the same predictions."""

import math
import random
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import data


def rings(rows=600, seed=1):
    """Three classes: a disc and two rings around it."""
    r = random.Random(seed)
    made = []
    for _ in range(rows):
        radius, angle = 2 * r.random(), 2 * math.pi * r.random()
        name = "disc" if radius < 0.7 else "ring" if radius < 1.35 else "far"
        made.append([f"{radius * math.cos(angle):.5f}", f"{radius * math.sin(angle):.5f}", name])
    return data.csv(["x", "y", "where"], made)


def products(rows=400, seed=2):
    """z = x y: what no sum of functions of x and of y is."""
    r = random.Random(seed)
    made = [(r.uniform(-1, 1), r.uniform(-1, 1)) for _ in range(rows)]
    return data.csv(["x", "y", "z"], [[f"{x:.4f}", f"{y:.4f}", f"{x * y:.6f}"] for x, y in made])


def sequences(rows=500, seed=3):
    """Five steps of three numbers; the first number marks two steps. Do their second numbers have the same sign? Two
    steps have to be brought together, wherever they are."""
    r = random.Random(seed)
    made = []
    for _ in range(rows):
        steps = [[0, r.uniform(-1, 1), r.gauss(0, 0.3)] for _ in range(5)]
        a, b = r.sample(range(5), 2)
        steps[a][0] = steps[b][0] = 1
        made.append([f"{v:.4f}" for step in steps for v in step] +
                    ["same" if steps[a][1] * steps[b][1] > 0 else "other"])
    return data.csv([f"s{i}_{k}" for i in range(5) for k in range(3)] + ["answer"], made)


@pytest.fixture(scope="module")
def ready(daemon):
    for name, body in (("rings", rings()), ("products", products()), ("sequences", sequences()),
                       ("flowers", data.flowers())):
        daemon.upload(name, body)
    return daemon


def tensors(daemon, job, checkpoint=None):
    reply = daemon.get(f"/v1/jobs/{job['id']}/weights", params={"checkpoint": checkpoint} if checkpoint else {})
    assert reply.status_code == 200, reply.text
    return safetensors.torch.load(reply.content)


def series(daemon, job, name):
    return daemon.get(f"/v1/jobs/{job['id']}/metrics").json()[name]["value"]


def chances(daemon, job, rows):
    reply = daemon.post(f"/v1/jobs/{job['id']}/predict", json={"rows": rows})
    assert reply.status_code == 200, reply.text
    return [list(p["probabilities"].values()) for p in reply.json()["predictions"]]


def faults(reply):
    assert reply.status_code == 422, reply.text
    return [(e["pointer"], e["code"], e.get("suggestion")) for e in reply.json()["errors"]]


# --- batch_norm ---

def deep(norm):
    layers = []
    for _ in range(20):
        layers.append({"type": "dense", "units": 16, "kernel_initializer": {"type": "normal", "std": 0.1}})
        layers += ["batch_norm"] * norm + ["sigmoid"]
    return {"dataset": "rings", "target": "where", "layers": layers, "epochs": 100,
            "optimizer": {"type": "adam", "lr": 0.003}}


def test_batch_norm_lets_twenty_layers_learn(ready):
    """Twenty layers of sigmoids that start with small weights pass on next to nothing of the error signal: such a net
    stays at chance. With each layer's inputs brought to mean 0 and variance 1 it learns."""
    without, with_it = ready.train(deep(False)), ready.train(deep(True))
    assert max(series(ready, without, "val_accuracy")) < 0.5
    assert max(series(ready, with_it, "val_accuracy")) > 0.85
    assert with_it["metrics"]["best"]["value"] < 0.5 < 1 < without["metrics"]["best"]["value"]
    said = {job["id"]: ready.get(f"/v1/jobs/{job['id']}/diagnosis").json() for job in (without, with_it)}
    assert [f["code"] for f in said[without["id"]]["findings"]] == ["vanishing_gradients"]
    assert "vanishing_gradients" not in [f["code"] for f in said[with_it["id"]]["findings"]]


SMALL = [{"type": "dense", "units": 8}, "batch_norm", "tanh", {"type": "dense", "units": 6, "use_bias": False},
         {"type": "batch_norm", "affine": False, "momentum": 0.3, "eps": 1e-3}, "tanh", {"type": "dense", "units": 3}]


def small_in_torch():
    return nn.Sequential(OrderedDict(
        dense_1=nn.Linear(4, 8), batch_norm_1=nn.BatchNorm1d(8), activation_1=nn.Tanh(),
        dense_2=nn.Linear(8, 6, bias=False), batch_norm_2=nn.BatchNorm1d(6, eps=1e-3, affine=False),
        activation_2=nn.Tanh(), dense_3=nn.Linear(6, 3)))


def small_spec(**more):
    return {"dataset": {"name": "flowers", "target": "species", "scale": "none"}, "layers": SMALL, "epochs": 12,
            "batch_size": 16, **more}


def test_torch_takes_the_running_statistics(ready):
    """The file loads strictly, and the predictions of the running statistics are ours: of one row and of many."""
    job = ready.train(small_spec())
    loaded = tensors(ready, job)
    assert (loaded["batch_norm_1.running_mean"].abs() > 1e-3).all()
    assert (loaded["batch_norm_2.running_var"] != 1).all()
    network = small_in_torch()
    network.load_state_dict(loaded, strict=True)
    network.eval()
    rows = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.8, 4.4, 1.3], [6.7, 3.1, 5.7, 2.1], [0, 0, 0, 0]]
    expected = network(torch.tensor(rows, dtype=torch.float32)).softmax(1).tolist()
    assert np.allclose(chances(ready, job, rows), expected, atol=1e-5)
    assert chances(ready, job, rows)[:1] == chances(ready, job, rows[:1])


def test_best_weights_come_with_their_statistics(ready):
    """The validation rows give the loss of the best epoch again, and those of the last one for the latest state."""
    job = ready.train(small_spec(epochs=40, optimizer={"type": "adam", "lr": 0.1}))
    best, last = job["metrics"]["best"], job["metrics"]["last"]
    assert best["step"] != job["progress"]["step"]
    for checkpoint, value in (("best", best["value"]), ("latest", last["val_loss"])):
        reply = ready.post(f"/v1/jobs/{job['id']}/evaluate", json={"split": "validation"},
                           params={"checkpoint": checkpoint})
        assert reply.status_code == 200, reply.text
        assert math.isclose(reply.json()["loss"], value, rel_tol=1e-12), checkpoint
    assert not torch.equal(tensors(ready, job, "best")["batch_norm_1.running_mean"],
                           tensors(ready, job, "latest")["batch_norm_1.running_mean"])


def test_momentum_and_eps_have_their_effect(ready):
    """Momentum 1: the statistics of the last batch; 0: those of the start."""
    def mean(momentum):
        layers = [{"type": "batch_norm", "momentum": momentum, "name": "norm"}, {"type": "dense", "units": 3}]
        job = ready.train(small_spec(layers=layers, epochs=3, training={"early_stopping": {"restore_best": False}}))
        return tensors(ready, job)["norm.running_mean"], tensors(ready, job)["norm.running_var"]
    assert torch.equal(mean(0)[0], torch.zeros(4)) and torch.equal(mean(0)[1], torch.ones(4))
    assert abs(mean(1)[0][0] - 5.8) < 0.6 and abs(mean(0.5)[0][0] - 5.8) < 0.6
    wide = ready.train(small_spec(layers=[{"type": "layer_norm", "eps": 0.9}, {"type": "dense", "units": 3}]))
    plain = ready.train(small_spec(layers=["layer_norm", {"type": "dense", "units": 3}]))
    assert series(ready, wide, "loss") != series(ready, plain, "loss")


def test_a_last_batch_of_one_row_is_survived_and_told(ready):
    """97 training rows in batches of 16 leave one, which has no variance."""
    spec = small_spec(dataset={"name": "flowers", "target": "species", "validation_split": 53 / 150, "stratify": False})
    job = ready.train(spec)
    assert job["progress"]["steps"] == 12 * 7
    assert [x["pointer"] for x in job["warnings"] if x["code"] == "single_row"] == ["/batch_size"]
    assert math.isfinite(job["metrics"]["last"]["loss"])
    told = ready.train({**spec, "batch_size": 15})["warnings"]
    assert not [x for x in told if x["code"] == "single_row"]


# --- the other norms ---

def test_layer_norm_takes_the_scale_out(ready):
    """A row and ten times the row are the same after layer_norm; without it they are not."""
    def difference(first):
        job = ready.train(small_spec(layers=[*first, {"type": "dense", "units": 3}]))
        small, large = chances(ready, job, [[5.0, 3.0, 2.0, 0.5], [50.0, 30.0, 20.0, 5.0]])
        return max(abs(a - b) for a, b in zip(small, large))
    assert difference(["layer_norm"]) < 1e-4
    assert difference([{"type": "group_norm", "groups": 2}]) < 1e-2
    assert difference([]) > 0.01


def test_torch_agrees_on_norms_of_images(ready):
    """group_norm, batch_norm and layer_norm of [2, 2, 1] pictures."""
    layers = [{"type": "batch_norm", "name": "bn"}, {"type": "group_norm", "groups": 1, "name": "gn"},
              {"type": "layer_norm", "name": "ln"}, {"type": "dense", "units": 3, "name": "out"}]
    job = ready.train(small_spec(layers=layers, dataset={"name": "flowers", "target": "species", "scale": "none",
                                                         "input_shape": [2, 2, 1]}))
    network = nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(2), gn=nn.GroupNorm(1, 2), ln=nn.LayerNorm([2, 2, 1]),
                                        flat=nn.Flatten(), out=nn.Linear(4, 3)))
    network.load_state_dict(tensors(ready, job), strict=True)
    network.eval()
    rows = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.1, 5.7, 2.1]]
    expected = network(torch.tensor(rows).reshape(-1, 2, 2, 1)).softmax(1).tolist()
    assert np.allclose(chances(ready, job, rows), expected, atol=1e-5)


# --- branches ---

def linear(name, inputs="input", units=1):
    return {"type": "dense", "units": units, "name": name, "inputs": inputs}


def test_multiply_learns_a_product(ready):
    """Linear layers alone cannot; two of them multiplied can."""
    def loss(layers):
        return ready.train({"dataset": "products", "target": "z", "layers": layers, "epochs": 60,
                            "optimizer": {"type": "adam", "lr": 0.02}})["metrics"]["best"]["value"]
    chain = [{"type": "dense", "units": 4, "name": "a"}, {"type": "dense", "units": 4, "name": "b"}]
    fork = [linear("a", units=4), linear("b", units=4), {"type": "multiply", "inputs": ["a", "b"]}]
    assert loss(fork) < 1e-4 < 0.05 < loss([*chain, linear("c", "b")])


def test_add_and_concat_as_torch_computes_them(ready):
    layers = [{"type": "dense", "units": 5, "activation": "tanh", "name": "a"},
              {"type": "dense", "units": 5, "activation": "tanh", "name": "b"},
              {"type": "add", "inputs": ["a", "b", "a"], "name": "sum"},
              {"type": "concat", "inputs": ["sum", "input", "b"], "name": "all"},
              {"type": "dense", "units": 3, "name": "out"}]
    job = ready.train(small_spec(layers=layers))
    assert [layer.get("inputs") for layer in job["spec"]["model"]["layers"]] == [
        None, None, ["a", "b", "a"], ["sum", "input", "b"], None]
    t, rows = tensors(ready, job), [[5.1, 3.5, 1.4, 0.2], [6.7, 3.1, 5.7, 2.1]]
    x = torch.tensor(rows)
    a = torch.tanh(x @ t["a.weight"].T + t["a.bias"])
    b = torch.tanh(a @ t["b.weight"].T + t["b.bias"])
    y = torch.cat([a + b + a, x, b], 1) @ t["out.weight"].T + t["out.bias"]
    assert np.allclose(chances(ready, job, rows), y.softmax(1).tolist(), atol=1e-5)


def test_residual_connections_let_a_deep_chain_learn(ready):
    """The error signal goes round each block: forty tanh layers with small weights learn only with the way round."""
    def best(residual):
        layers = [{"type": "dense", "units": 12, "activation": "tanh", "name": "x0"}]
        for i in range(20):
            layers.append({"type": "dense", "units": 12, "activation": "tanh", "name": f"h{i}",
                           "kernel_initializer": {"type": "normal", "std": 0.05}})
            if residual:
                layers.append({"type": "add", "inputs": [f"h{i}", layers[-2]["name"]], "name": f"x{i + 1}"})
        job = ready.train({"dataset": "rings", "target": "where", "layers": layers, "epochs": 30,
                           "optimizer": {"type": "sgd", "lr": 0.05, "momentum": 0.9}})
        return max(series(ready, job, "val_accuracy"))
    assert best(True) > 0.85 and best(False) < 0.5


def test_mistakes_in_the_wiring_are_explained(ready):
    def told(layers):
        return faults(ready.post("/v1/jobs", json={"dataset": "flowers", "target": "species", "layers": layers}))
    a, b = {"type": "dense", "units": 4, "name": "trunk"}, {"type": "dense", "units": 5, "name": "branch"}
    assert told([a, {"type": "dense", "units": 3, "inputs": "trank"}]) == [
        ("/layers/1/inputs", "unknown_name", "trunk")]
    assert told([a, {"type": "add", "inputs": ["trunk", "later"]}, {**b, "units": "auto", "name": "later"}])[0][:2] == (
        "/layers/1/inputs/1", "incompatible")
    assert told([a, b, {"type": "dense", "units": 3, "inputs": "trunk"}]) == [("/layers/1", "unused", None)]
    assert told([a, "add"])[0][:2] == ("/layers/1", "incompatible")
    reply = ready.post("/v1/jobs", json={"dataset": "flowers", "target": "species",
                                         "layers": [a, b, {"type": "add", "inputs": ["trunk", "branch"]}]})
    assert faults(reply)[0][:2] == ("/layers/2", "incompatible")
    assert "'trunk' gives [4], but 'branch' gives [5]" in reply.text


# --- frozen layers ---

def test_a_frozen_layer_stays_as_it_was(ready):
    """Neither gradient nor weight decay moves it; a frozen batch_norm keeps its statistics as well."""
    def trained(frozen, epochs, **more):
        layers = [{"type": "dense", "units": 6, "name": "a", "trainable": not frozen},
                  {"type": "batch_norm", "name": "n", "trainable": not frozen}, "tanh",
                  {"type": "dense", "units": 3, "name": "b"}]
        return tensors(ready, ready.train(small_spec(layers=layers, epochs=epochs, **more)), "latest")
    decay = {"optimizer": {"type": "adamw", "lr": 0.01, "weight_decay": 0.1}}
    one, many, free = trained(True, 1), trained(True, 9, **decay), trained(False, 9, **decay)
    for name in ("a.weight", "a.bias", "n.weight", "n.bias", "n.running_mean", "n.running_var"):
        assert torch.equal(one[name], many[name]) and not torch.equal(many[name], free[name]), name
    assert not torch.equal(one["b.weight"], many["b.weight"])
    assert torch.equal(many["n.running_mean"], torch.zeros(6)) and torch.equal(many["n.running_var"], torch.ones(6))


# --- attention ---

def attending(**attention):
    return {"dataset": {"name": "sequences", "target": "answer", "scale": "none"}, "epochs": 60, "batch_size": 32,
            "optimizer": {"type": "adam", "lr": 0.01},
            "layers": [{"type": "reshape", "shape": [5, 3], "name": "steps"},
                       {"type": "multi_head_attention", "heads": 4, "key_dim": 8, "name": "look", **attention},
                       {"type": "concat", "inputs": ["look", "steps"], "name": "both"},
                       {"type": "layer_norm", "name": "norm"}, {"type": "flatten", "name": "flat"},
                       {"type": "dense", "units": 32, "activation": "relu"}, {"type": "dense", "units": 2}]}


def test_attention_learns_to_compare_steps(ready):
    job = ready.train(attending())
    assert job["metrics"]["last"]["accuracy"] > 0.9
    assert tuple(tensors(ready, job)["look.in_proj_weight"].shape) == (96, 3)


def test_causal_and_dropout_have_their_effect(ready):
    plain, causal = ready.train(attending()), ready.train(attending(causal=True))
    dropped = ready.train(attending(dropout=0.4))
    losses = [series(ready, job, "loss") for job in (plain, causal, dropped)]
    assert losses[0] != losses[1] and losses[0] != losses[2]
    assert losses[2][-1] > losses[0][-1]


@pytest.mark.parametrize("causal", [False, True])
def test_torch_takes_the_attention(ready, causal):
    layers = [{"type": "reshape", "shape": [5, 3]},
              {"type": "multi_head_attention", "heads": 3, "causal": causal, "name": "look"},
              {"type": "dense", "units": 2, "name": "out"}]
    job = ready.train({**attending(), "layers": layers, "epochs": 5})
    t = tensors(ready, job)
    look, out = nn.MultiheadAttention(3, 3, batch_first=True), nn.Linear(15, 2)
    look.load_state_dict({k[5:]: v for k, v in t.items() if k.startswith("look.")}, strict=True)
    out.load_state_dict({k[4:]: v for k, v in t.items() if k.startswith("out.")}, strict=True)
    rows = [[round(random.Random(i).uniform(-1, 1), 3) for _ in range(15)] for i in range(4)]
    x = torch.tensor(rows).reshape(-1, 5, 3)
    mask = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1) if causal else None
    y = out(look(x, x, x, attn_mask=mask)[0].reshape(-1, 15))
    assert np.allclose(chances(ready, job, rows), y.softmax(1).tolist(), atol=1e-5)


def test_a_mask_hides_steps(ready):
    """The mask is the marks themselves, so the two steps see each other and nothing else. What another step holds then
    changes nothing in the result of the marked ones, which alone are read."""
    layers = [{"type": "reshape", "shape": [5, 3], "name": "steps"},
              {"type": "dense", "units": 5, "inputs": "input", "name": "mask", "trainable": False,
               "kernel_initializer": "zeros", "bias_initializer": "zeros"},
              {"type": "multi_head_attention", "heads": 3, "name": "look", "inputs": ["steps", "mask"]},
              {"type": "dense", "units": 2, "name": "out"}]
    job = ready.train({**attending(), "layers": layers, "epochs": 2, "allow_symmetric": True})
    t = tensors(ready, job)
    rows = [[0.5] * 15, [-0.9] * 15]
    first, second = chances(ready, job, rows)
    expected = (t["look.out_proj.bias"].repeat(5) @ t["out.weight"].T + t["out.bias"]).softmax(0).tolist()
    assert np.allclose(first, expected, atol=1e-6) and first == second  # nothing may be looked at


# --- the same bytes ---

def test_any_number_of_threads(make_daemon):
    daemon = make_daemon("--threads", "5", "--workers", "1")
    daemon.upload("sequences", sequences())
    spec = attending(dropout=0.2)
    spec["layers"].insert(-1, {"type": "dense", "units": 64})
    spec["layers"].insert(-1, "batch_norm")
    found = []
    for threads in (1, 2, 3, 5):
        job = daemon.train({**spec, "epochs": 3, "batch_size": 256, "threads": threads})
        found.append({name: tensor.numpy().tobytes() for name, tensor in tensors(daemon, job).items()})
    assert all(f == found[0] for f in found)
