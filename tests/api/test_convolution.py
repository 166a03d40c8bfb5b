"""Convolutions, pools, reshape and embeddings through the API: they learn, PyTorch agrees, and mistakes are explained."""

import random

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

import data

SIDE = 8
KINDS = ["horizontal", "vertical", "blob"]


def pictures(rows=300, seed=4):
    """A bright line across, a bright line down, or a bright square, somewhere in a dim noisy 8 x 8 picture: the place
    says nothing, the shape all."""
    r = random.Random(seed)
    made = []
    for i in range(rows):
        kind, at = KINDS[i % 3], r.randrange(1, SIDE - 2)
        picture = np.array([[r.gauss(0, 0.2) for _ in range(SIDE)] for _ in range(SIDE)])
        if kind == "horizontal":
            picture[at, :] += 1
        elif kind == "vertical":
            picture[:, at] += 1
        else:
            x = r.randrange(1, SIDE - 3)
            picture[at:at + 3, x:x + 3] += 1
        made.append([f"{v:.3f}" for v in picture.reshape(-1)] + [kind])
    return data.csv([f"p{i}" for i in range(SIDE * SIDE)] + ["kind"], made)


def picture_spec(layers, **more):
    return {"dataset": {"name": "pictures", "target": "kind", "scale": "none", "input_shape": [1, SIDE, SIDE]},
            "layers": layers, "epochs": 15, "optimizer": {"type": "adam", "lr": 0.01}, "seed": 3, **more}


@pytest.fixture(scope="module")
def pictured(daemon):
    daemon.upload("pictures", pictures())
    return daemon


# --- the same network in PyTorch ---

def pair(value):
    return list(value) if isinstance(value, list) else [value, value]


def padded(x, layer, window, dilation, value=0.0):
    """x with the zeros around it that the layer's padding asks for."""
    padding, strides = layer["padding"], pair(layer["strides"] or window)
    if padding == "valid":
        return x
    sides = []
    for i in (1, 0) if x.dim() == 4 else (0,):
        if padding == "same":
            size, k, s, d = x.shape[2 + i], pair(window)[i], strides[i], pair(dilation)[i]
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            sides += [total // 2, total - total // 2]
        else:
            sides += [pair(padding)[i]] * 2
    return F.pad(x, sides, value=value)


def run_layer(layer, x, tensors):
    kind, name = layer["type"], layer["name"]
    w, b = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
    if kind == "dense":
        x = x @ w.T + b
    elif kind == "conv1d":
        x = F.conv1d(padded(x, layer, layer["kernel_size"], layer["dilation"]), w, b, layer["strides"], 0,
                     layer["dilation"], layer["groups"])
    elif kind in ("conv2d", "depthwise_conv2d"):
        groups = layer.get("groups", x.shape[1])
        x = F.conv2d(padded(x, layer, layer["kernel_size"], layer["dilation"]), w, b, pair(layer["strides"]), 0,
                     pair(layer["dilation"]), groups)
    elif kind == "max_pool2d":
        x = F.max_pool2d(padded(x, layer, layer["pool_size"], 1, -np.inf), pair(layer["pool_size"]),
                         pair(layer["strides"] or layer["pool_size"]))
    elif kind == "avg_pool2d":
        x = F.avg_pool2d(padded(x, layer, layer["pool_size"], 1), pair(layer["pool_size"]),
                         pair(layer["strides"] or layer["pool_size"]))
    elif kind == "global_avg_pool2d":
        x = x.flatten(2).mean(2)
    elif kind == "flatten":
        x = x.flatten(1)
    elif kind == "reshape":
        x = x.reshape([-1, *layer["shape"]])
    elif kind == "embedding":
        x = F.embedding(x.long(), w)
    else:
        raise AssertionError(kind)
    return x.relu() if layer.get("activation") == "relu" else x


def torch_probabilities(daemon, job, x):
    tensors = safetensors.torch.load(daemon.get(f"/v1/jobs/{job['id']}/weights").content)
    x = torch.tensor(x)
    for layer in job["spec"]["model"]["layers"]:
        x = run_layer(layer, x, tensors)
    return x.softmax(1).numpy(), tensors


def ours(daemon, job, rows, classes):
    reply = daemon.post(f"/v1/jobs/{job['id']}/predict", json=rows)
    assert reply.status_code == 200, reply.text
    return np.array([[row["probabilities"][c] for c in classes] for row in reply.json()["predictions"]])


def close(a, b):
    return np.all(np.abs(a - b) <= 1e-5 * np.maximum(1, np.abs(b)))


CONV = {"type": "conv2d", "filters": 6, "kernel_size": 3, "activation": "relu"}
NETS = {
    "conv2d": [{**CONV, "padding": "same"}, "max_pool2d", {**CONV, "filters": 8}, 16],
    "strides": [{**CONV, "strides": 2, "padding": "same"}, {**CONV, "strides": [2, 1], "kernel_size": [3, 2]}, 16],
    "dilation": [{**CONV, "dilation": 2, "padding": "same"}, {**CONV, "dilation": [1, 2]}, "max_pool2d", 16],
    "groups": [{**CONV, "padding": 1}, {**CONV, "groups": 3, "padding": [2, 0]}, "max_pool2d", 16],
    "depthwise_conv2d": [{"type": "depthwise_conv2d", "kernel_size": 3, "depth_multiplier": 6, "activation": "relu"},
                         {"type": "depthwise_conv2d", "kernel_size": 3, "padding": "same", "activation": "relu"},
                         {**CONV, "kernel_size": 1}, "max_pool2d", 16],
    "avg_pool2d": [CONV, {"type": "avg_pool2d", "pool_size": 3, "strides": 2, "padding": 1}, 16],
    "max_pool2d same": [CONV, {"type": "max_pool2d", "pool_size": [3, 2], "padding": "same"}, 16],
    "global_avg_pool2d": [{**CONV, "filters": 12}, {**CONV, "filters": 12}, "global_avg_pool2d"],
    "conv1d": ["flatten", {"type": "reshape", "shape": [8, 8]},
               {"type": "conv1d", "filters": 8, "kernel_size": 3, "padding": "same", "activation": "relu"},
               {"type": "conv1d", "filters": 8, "kernel_size": 3, "strides": 2, "groups": 2, "activation": "relu"}, 16],
}


@pytest.mark.parametrize("net", NETS)
def test_it_learns_and_torch_comes_to_the_same_predictions(pictured, net):
    job = pictured.train(picture_spec(NETS[net]))
    assert job["metrics"]["last"]["val_accuracy"] > 0.8, job["metrics"]
    lines = pictures(40, seed=9).splitlines()[1:]
    rows = [[float(v) for v in line.split(",")[:-1]] for line in lines]
    x = np.array(rows, np.float32).reshape(-1, 1, SIDE, SIDE)
    classes = sorted(KINDS)
    theirs, tensors = torch_probabilities(pictured, job, x)
    assert close(ours(pictured, job, rows, classes), theirs)
    assert sum(t.numel() for t in tensors.values()) == job["model"]["parameters"]


def test_the_first_weights_are_torchs(pictured):
    """U(+-1/sqrt(channels / groups * height * width)), weights and biases; the rate is as good as none."""
    spec = picture_spec([{**CONV, "filters": 400, "kernel_size": [3, 5], "name": "c"}, "global_avg_pool2d"], epochs=1,
                        optimizer={"type": "sgd", "lr": 1e-30})
    job = pictured.train(spec)
    tensors = safetensors.torch.load(pictured.get(f"/v1/jobs/{job['id']}/weights").content)
    assert tensors["c.weight"].shape == (400, 1, 3, 5) and tensors["c.bias"].shape == (400,)
    limit = 15 ** -0.5
    for tensor in (tensors["c.weight"], tensors["c.bias"]):
        assert tensor.abs().max() <= limit and abs(tensor.std() - limit / 3 ** 0.5) < 0.05 * limit


def test_the_layer_table_has_shapes_and_parameters(pictured):
    spec = picture_spec([{**CONV, "name": "c", "padding": "same"}, {"type": "depthwise_conv2d", "kernel_size": 3},
                         {"type": "avg_pool2d"}, "global_avg_pool2d"])
    reply = pictured.post("/v1/jobs", params={"dry_run": "true"}, json=spec)
    assert reply.status_code == 200, reply.text
    layers = [(layer["type"], layer["output_shape"], layer["parameters"]) for layer in reply.json()["model"]["layers"]]
    assert layers == [("conv2d", [6, 8, 8], 60), ("depthwise_conv2d", [6, 6, 6], 60), ("avg_pool2d", [6, 3, 3], 0),
                      ("global_avg_pool2d", [6], 0), ("dense", [3], 21)]


@pytest.mark.parametrize("layers, at, words", [
    ([CONV, CONV, CONV, CONV], 3, ["conv2d_4", "[6, 2, 2]", "window of 3", "height", "same", "conv2d_3 [6, 2, 2]",
                                   "input [1, 8, 8]"]),
    (["max_pool2d", "max_pool2d", "max_pool2d", "max_pool2d"], 3, ["max_pool2d_4", "[1, 1, 1]", "less pooling"]),
    (["flatten", CONV], 1, ["conv2d_1", "[64]", "[channels, height, width]", "reshape"]),
    ([16, "relu", "max_pool2d"], 3, ["max_pool2d_1", "[16]", "before the flatten"]),
    ([{**CONV, "groups": 2}], 0, ["groups", "1 channels", "6 filters"]),
    ([{"type": "reshape", "shape": [3, 20]}], 0, ["[1, 8, 8]", "64 elements", "[3, 20]"]),
    ([{"type": "max_pool2d", "padding": 2}], 0, ["half of pool_size"]),
])
def test_a_shape_that_does_not_fit_is_explained(pictured, problem, layers, at, words):
    reply = pictured.post("/v1/jobs", json=picture_spec(layers))
    assert reply.status_code == 422, reply.text
    [error] = reply.json()["errors"]
    assert error["code"] == "incompatible" and error["pointer"].startswith("/layers/"), error
    assert all(word in error["detail"] for word in words), error


def test_equal_filters_are_refused(pictured):
    reply = pictured.post("/v1/jobs", json=picture_spec([{**CONV, "kernel_initializer": "ones"}]))
    assert reply.status_code == 422 and reply.json()["errors"][0]["code"] == "symmetric"


def test_the_same_bytes_with_one_thread_and_two(pictured):
    files = []
    for threads in (1, 2):
        job = pictured.train(picture_spec(NETS["groups"], epochs=3, threads=threads))
        file = pictured.get(f"/v1/jobs/{job['id']}/weights").content
        files.append(file[8 + int.from_bytes(file[:8], "little"):])
    assert files[0] == files[1]


# --- embeddings ---

def words(rows=400, seed=6):
    """Which of two groups the two words of a row belong to says the class: same or different."""
    r = random.Random(seed)
    groups = [["ash", "elm", "fir", "oak"], ["cat", "dog", "fox", "hen"]]
    made = []
    for i in range(rows):
        a, b = r.randrange(2), r.randrange(2)
        made.append([r.choice(groups[a]), r.choice(groups[b]), r.randrange(5), "same" if a == b else "different"])
    return data.csv(["one", "two", "number", "kind"], made)


EMBED = {"type": "embedding", "name": "e", "input_dim": 8, "output_dim": 4}
WORDS = {"name": "words", "target": "kind", "features": ["one", "two"]}


@pytest.fixture(scope="module")
def worded(daemon):
    daemon.upload("words", words())
    return daemon


def test_an_embedding_learns_a_vector_a_category(worded):
    job = worded.train({"dataset": WORDS, "layers": [EMBED, 16], "epochs": 40, "optimizer": {"lr": 0.02}})
    assert job["spec"]["dataset"]["encode"] == "code"
    assert job["metrics"]["last"]["val_accuracy"] > 0.95
    levels = ["ash", "cat", "dog", "elm", "fir", "fox", "hen", "oak"]
    rows = [["ash", "dog"], ["oak", "elm"], ["hen", "cat"], ["fox", "fir"]]
    codes = np.array([[levels.index(w) for w in row] for row in rows])
    theirs, tensors = torch_probabilities(worded, job, codes)
    assert tensors["e.weight"].shape == (8, 4)
    assert close(ours(worded, job, rows, ["different", "same"]), theirs)


def test_whole_numbers_are_codes_too(worded):
    dataset = {**WORDS, "features": ["number"]}
    job = worded.train({"dataset": dataset, "layers": [{**EMBED, "input_dim": 5}], "epochs": 2})
    reply = ours(worded, job, [[0], [4]], ["different", "same"])
    theirs, _ = torch_probabilities(worded, job, np.array([[0], [4]]))
    assert close(reply, theirs)


def test_codes_must_fit_the_table(worded):
    reply = worded.post("/v1/jobs", json={"dataset": WORDS, "layers": [{**EMBED, "input_dim": 7}]})
    assert reply.status_code == 422, reply.text
    [error] = reply.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/layers/0/input_dim", "out_of_range") and "at least 8" in error["detail"]
    reply = worded.post("/v1/jobs", json={"dataset": {**WORDS, "columns": {"two": {"encode": "one_hot"}}},
                                          "layers": [EMBED]})
    assert reply.status_code == 422 and '"two"' in reply.json()["errors"][0]["detail"], reply.text


def test_the_number_of_codes_is_found_out(worded):
    open_ended = {"type": "embedding", "name": "e", "output_dim": 4}
    job = worded.train({"dataset": WORDS, "layers": [open_ended, 16], "epochs": 1})
    assert job["spec"]["model"]["layers"][0]["input_dim"] == 8
    assert any(w["code"] == "inferred" and "input_dim is 8" in w["detail"] for w in job["warnings"]), job["warnings"]
    reply = worded.post("/v1/jobs", json={"dataset": WORDS, "layers": [EMBED, {**open_ended, "name": "f"}]})
    [error] = reply.json()["errors"]
    assert (error["pointer"], error["code"]) == ("/layers/1/input_dim", "required") and "not the first" in error["detail"]


def test_a_missing_word_has_a_vector_of_its_own(daemon):
    lines = words().splitlines()
    daemon.upload("gaps", "\n".join([lines[0]] + ["," + line.split(",", 1)[1] if i % 9 == 0 else line
                                                  for i, line in enumerate(lines[1:])]) + "\n")
    spec = {"dataset": {**WORDS, "name": "gaps"}, "layers": [EMBED, 16], "epochs": 3}
    reply = daemon.post("/v1/jobs", json=spec)
    assert reply.status_code == 422 and "at least 9" in reply.json()["errors"][0]["detail"], reply.text
    job = daemon.train({**spec, "layers": [{**EMBED, "input_dim": 9}, 16]})
    theirs, _ = torch_probabilities(daemon, job, np.array([[8, 2], [0, 2]]))
    assert close(ours(daemon, job, [[None, "dog"], ["ash", "dog"]], ["different", "same"]), theirs)
