"""Every optimizer through the API: it learns, each of its parameters has an effect, and where PyTorch has it, a few steps
from the same weights end at PyTorch's."""

import io

import numpy as np
import pytest
import torch

import data

OPTIMIZERS = {
    "sgd": {"lr": 0.1, "momentum": 0.9},
    "rmsprop": {"lr": 0.01},
    "adagrad": {"lr": 0.1},
    "adadelta": {"lr": 1.0},
    "adam": {"lr": 0.01},
    "adamw": {"lr": 0.01},
    "nadam": {"lr": 0.01},
    "adamax": {"lr": 0.02},
    "lamb": {"lr": 0.01},
    "lion": {"lr": 0.003},
}

# type, our parameters, PyTorch's class, PyTorch's parameters (None: the same)
TORCH = [
    ("sgd", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, torch.optim.SGD, None),
    ("rmsprop", {"lr": 0.003, "alpha": 0.9, "momentum": 0.5, "centered": True, "eps": 1e-3}, torch.optim.RMSprop, None),
    ("adagrad", {"lr": 0.05, "initial_accumulator": 0.1}, torch.optim.Adagrad,
     {"lr": 0.05, "initial_accumulator_value": 0.1}),
    ("adadelta", {"lr": 1.0, "rho": 0.8, "eps": 1e-5}, torch.optim.Adadelta, None),
    ("adam", {"lr": 0.01, "betas": [0.8, 0.9], "amsgrad": True}, torch.optim.Adam, None),
    ("adamw", {"lr": 0.01, "weight_decay": 0.1}, torch.optim.AdamW, None),
    ("adamax", {"lr": 0.01, "weight_decay": 0.01}, torch.optim.Adamax, None),
]

# What changes the result when it is another than the default.
EFFECTS = [
    ("sgd", "dampening", 0.5), ("sgd", "nesterov", True), ("rmsprop", "alpha", 0.5), ("rmsprop", "momentum", 0.5),
    ("rmsprop", "centered", True), ("rmsprop", "eps", 0.1), ("rmsprop", "weight_decay", 0.1),
    ("adagrad", "initial_accumulator", 1.0), ("adagrad", "eps", 0.1), ("adagrad", "weight_decay", 0.1),
    ("adadelta", "rho", 0.5), ("adadelta", "eps", 1e-3), ("adadelta", "weight_decay", 0.1),
    ("adam", "amsgrad", True), ("adam", "betas", [0.5, 0.9]), ("adamw", "amsgrad", True),
    ("adamw", "weight_decay", 0.5), ("nadam", "momentum_decay", 0.1), ("nadam", "betas", [0.5, 0.9]),
    ("nadam", "eps", 0.1), ("nadam", "weight_decay", 0.1), ("adamax", "betas", [0.5, 0.9]), ("adamax", "eps", 0.1),
    ("adamax", "weight_decay", 0.1), ("lamb", "betas", [0.5, 0.9]), ("lamb", "eps", 0.1), ("lamb", "weight_decay", 0.1),
    ("lion", "betas", [0.5, 0.9]), ("lion", "weight_decay", 0.5),
]


@pytest.fixture(scope="module")
def ready(daemon):
    daemon.upload("flowers", data.flowers())
    return daemon


def spec(optimizer, **more):
    # amsgrad and momentum need a few dozen steps to be seen
    return {"dataset": "flowers", "target": "species", "layers": [{"type": "dense", "units": 8, "activation": "tanh"}],
            "optimizer": optimizer, "training": {"epochs": 6, "batch_size": 16, **more}}


def tensors(daemon, job, checkpoint="latest"):
    reply = daemon.get(f"/v1/jobs/{job['id']}/weights.npz", params={"checkpoint": checkpoint})
    assert reply.status_code == 200, reply.text
    return dict(np.load(io.BytesIO(reply.content)))


@pytest.fixture(scope="module")
def plain(ready):
    """The weights that each optimizer comes to with its other parameters as they are."""
    return {name: tensors(ready, ready.train(spec({"type": name, **values}))) for name, values in OPTIMIZERS.items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_learns(ready, name):
    job = ready.train(spec({"type": name, **OPTIMIZERS[name]}, epochs=30))
    series = ready.get(f"/v1/jobs/{job['id']}/metrics?names=loss").json()["loss"]["value"]
    assert series[-1] < 0.5 * series[0], series
    assert job["metrics"]["last"]["val_accuracy"] >= 0.8, job["metrics"]
    assert job["spec"]["optimizer"]["type"] == name


def test_no_two_are_alike(plain):
    values = [np.concatenate([t.ravel() for t in w.values()]).tobytes() for w in plain.values()]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("name,parameter,value", EFFECTS)
def test_each_parameter_has_an_effect(ready, plain, name, parameter, value):
    job = ready.train(spec({"type": name, **OPTIMIZERS[name], parameter: value}))
    assert job["spec"]["optimizer"][parameter] == value
    changed = tensors(ready, job)
    assert any(not np.array_equal(changed[k], plain[name][k]) for k in changed)


@pytest.fixture(scope="module")
def start(ready):
    """A job whose weights others start from."""
    made = spec({"type": "adam", "lr": 0.01}, epochs=1)
    made["dataset"] = {"name": "flowers", "target": "species", "scale": "none", "validation_split": 0.0}
    made.pop("target")
    return made, ready.train(made)


@pytest.mark.parametrize("name,ours,kind,theirs", TORCH)
def test_steps_are_pytorchs(ready, start, name, ours, kind, theirs):
    made, first = start
    job = ready.train({**made, "init_from": {"job": first["id"], "checkpoint": "latest"},
                       "optimizer": {"type": name, **ours},
                       "training": {"epochs": 3, "batch_size": 16, "shuffle": False}})
    lines = [line.split(",") for line in data.flowers().splitlines()[1:]]
    names = sorted({line[-1] for line in lines})
    x = torch.tensor([[float(v) for v in line[:-1]] for line in lines]).double()
    y = torch.tensor([names.index(line[-1]) for line in lines])
    w = {k: torch.tensor(v).double().requires_grad_() for k, v in tensors(ready, first).items()}
    hidden, out = sorted({k.rsplit(".", 1)[0] for k in w}, key=lambda k: w[k + ".weight"].shape[0] != 8)
    optimizer = kind(list(w.values()), **(theirs or ours))
    for _ in range(3):
        for i in range(0, len(x), 16):
            z = torch.tanh(x[i:i + 16] @ w[hidden + ".weight"].T + w[hidden + ".bias"])
            z = z @ w[out + ".weight"].T + w[out + ".bias"]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(z, y[i:i + 16]).backward()
            optimizer.step()
    ended = tensors(ready, job)
    for k, v in w.items():
        np.testing.assert_allclose(ended[k], v.detach().numpy(), rtol=2e-5, atol=2e-5, err_msg=k)


def test_capabilities_list_them_all(ready):
    listed = {o["name"]: o for o in ready.get("/v1/capabilities").json()["optimizers"]}
    assert set(listed) == set(OPTIMIZERS) and all(o["available"] for o in listed.values())
