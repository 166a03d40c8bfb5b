"""POST /v1/gradients against PyTorch, POST /v1/gradient_check, GET /v1/jobs/{id}/graph."""

import json
import re
import struct

import numpy as np
import pytest


def read_safetensors(data):
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    about = header.pop("__metadata__")
    return about, {
        name: np.frombuffer(data[8 + n + t["data_offsets"][0] : 8 + n + t["data_offsets"][1]], "<f4").reshape(t["shape"])
        for name, t in header.items()}


def gradients(daemon, body):
    reply = daemon.post("/v1/gradients", json=body)
    assert reply.status_code == 200, reply.text
    return read_safetensors(reply.content)


def close(ours, theirs):
    assert ours.shape == theirs.shape
    assert np.all(np.abs(ours - theirs) <= 1e-5 * np.maximum(1, np.abs(theirs)))


LOSSES = {  # of the spec; of torch; targets of three rows
    "mse": ("mse_loss", [[0.5, -1.0, 2.0], [1.0, 0.0, 0.25], [-0.5, 0.5, 1.5]]),
    "bce": ("binary_cross_entropy_with_logits", [[0, 1, 1], [1, 0, 0.5], [0.25, 1, 0]]),
    "cross_entropy": ("cross_entropy", [2, 0, 1]),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu"])
def test_against_autograd(daemon, loss, activation):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(5)
    x = random.normal(size=(3, 4)).round(3).tolist()
    sizes = [4, 7, 5, 3]
    values = {}
    for i in range(3):
        values[f"dense_{i + 1}.weight"] = random.normal(size=(sizes[i + 1], sizes[i])).round(3).tolist()
        values[f"dense_{i + 1}.bias"] = random.normal(size=sizes[i + 1]).round(3).tolist()
    function, targets = LOSSES[loss]
    dense = [{"type": "dense", "units": n, "activation": activation} for n in sizes[1:3]] + [{"type": "dense", "units": 3}]
    about, ours = gradients(daemon, {"layers": dense, "loss": loss, "inputs": x, "targets": targets,
                                     "parameters": values})
    parameters = {name: torch.tensor(v, requires_grad=True) for name, v in values.items()}
    a = torch.tensor(x)
    for i in range(3):
        a = torch.nn.functional.linear(a, parameters[f"dense_{i + 1}.weight"], parameters[f"dense_{i + 1}.bias"])
        if i < 2:
            a = getattr(torch if activation != "gelu" else torch.nn.functional, activation)(a)
    result = getattr(torch.nn.functional, function)(a, torch.tensor(targets))
    result.backward()
    assert float(about["loss"]) == pytest.approx(result.item(), abs=1e-5)
    assert set(ours) == set(parameters)
    for name, tensor in parameters.items():
        close(ours[name], tensor.grad.numpy())


def test_a_convolution_against_autograd(daemon):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(6)
    x = random.normal(size=(2, 2, 5, 5)).round(3).tolist()
    values = {"conv2d_1.weight": random.normal(size=(3, 2, 3, 3)).round(3).tolist(),
              "conv2d_1.bias": [0.1, -0.2, 0.3],
              "dense_1.weight": random.normal(size=(2, 27)).round(3).tolist(), "dense_1.bias": [0.0, 0.1]}
    _, ours = gradients(daemon, {
        "layers": [{"type": "conv2d", "filters": 3, "kernel_size": 3, "activation": "tanh"}, {"type": "flatten"},
                   {"type": "dense", "units": 2}],
        "loss": "cross_entropy", "inputs": x, "targets": [1, 0], "parameters": values})
    p = {name: torch.tensor(v, requires_grad=True) for name, v in values.items()}
    a = torch.tanh(torch.nn.functional.conv2d(torch.tensor(x), p["conv2d_1.weight"], p["conv2d_1.bias"])).flatten(1)
    a = torch.nn.functional.linear(a, p["dense_1.weight"], p["dense_1.bias"])
    torch.nn.functional.cross_entropy(a, torch.tensor([1, 0])).backward()
    for name, tensor in p.items():
        close(ours[name], tensor.grad.numpy())


def test_of_a_spec_and_of_a_job(daemon):
    """The first epoch's single step of plain sgd is the update that the gradients of the spec say."""
    rows = "".join(f"{x / 7:.3f},{(x * 5) % 11 / 11:.3f},{(x * 3) % 7 / 7:.3f}\n" for x in range(20))
    daemon.upload("few", "a,b,y\n" + rows)
    spec = {"dataset": "few", "target": "y", "layers": [5], "optimizer": {"type": "sgd", "lr": 0.25}, "epochs": 1,
            "batch_size": 20, "validation_split": 0, "task": "regression"}
    about, before = gradients(daemon, {**spec, "rows": list(range(20))})
    job = daemon.train(spec)
    def weights(which):
        data = daemon.get(f"/v1/jobs/{job['id']}/weights.safetensors?checkpoint={which}").content
        return read_safetensors(data)[1]
    first = daemon.post("/v1/trace", json={**spec, "rows": list(range(20))}).json()
    for layer in first["layers"]:
        for name, values in layer["parameters"].items():
            close(weights("latest")[name], np.array(values["before"]) - 0.25 * before[name])
    assert int(about["rows"]) == 20 and "job" not in about
    about, after = gradients(daemon, {"job": job["id"], "checkpoint": "latest"})
    assert about["job"] == job["id"] and set(after) == set(before)
    assert any(np.any(after[name] != before[name]) for name in before)
    # the same call, the same bytes
    bodies = [daemon.post("/v1/gradients", json={**spec, "rows": [1, 2]}).content for _ in range(2)]
    assert bodies[0] == bodies[1]


def test_rows_of_a_pass_are_bounded(daemon, make_daemon, problem):
    """By its operations, since nothing stops it, and by the memory of a job, whatever batch the spec itself trains with."""
    wide = {"type": "conv2d", "filters": 512, "kernel_size": 3, "padding": "same"}
    spec = {"layers": [wide, wide, {"type": "flatten"}, 1], "loss": "mse", "batch_size": 1,
            "inputs": 300 * [[[16 * [0.5]] * 16]], "targets": 300 * [[1]]}
    assert daemon.post("/v1/gradients", json=spec) == problem(422, "limit_exceeded", "fewer rows")
    small = make_daemon("--memory", "16M")
    spec = {"layers": [2000, 1], "loss": "mse", "batch_size": 8, "inputs": 4000 * [[1]], "targets": 4000 * [[1]]}
    assert small.post("/v1/gradients", json=spec) == problem(422, "limit_exceeded", "fewer rows")
    spec["inputs"], spec["targets"] = 400 * [[1]], 400 * [[1]]
    assert small.post("/v1/gradients", json=spec).status_code == 200


def test_frozen_layers_have_no_gradient(daemon):
    _, ours = gradients(daemon, {"layers": [{"type": "dense", "units": 3, "trainable": False},
                                            {"type": "dense", "units": 1}], "loss": "mse",
                                 "inputs": [[1, 2]], "targets": [[1]]})
    assert set(ours) == {"dense_2.weight", "dense_2.bias"}


def test_formats_and_refusals(daemon, problem):
    spec = {"layers": [2], "loss": "mse", "inputs": [[1, 2]], "targets": [[1, 0]]}
    data = daemon.post("/v1/gradients?format=json", json=spec).json()
    assert data["tensors"]["dense_1.weight"]["shape"] == [2, 2]
    assert daemon.post("/v1/gradients?format=npz", json=spec).content[:2] == b"PK"
    assert daemon.post("/v1/gradients?format=xml", json=spec) == problem(400, "invalid_query", "safetensors")
    assert daemon.post("/v1/gradients", json={**spec, "inputs": [[1e30, 1e30]],
                                              "parameters": {"dense_1.weight": [1e30] * 4}}) == problem(422, "nonfinite")
    daemon.upload("two", "a,y\n1,2.5\n2,3.5\n")
    on = {"dataset": "two", "target": "y", "layers": [2], "task": "regression"}
    assert daemon.post("/v1/gradients", json={**on, "rows": [7]}) == problem(422, "invalid_rows", "/rows/0")
    assert daemon.post("/v1/gradients", json={**on, "rows": 1}) == problem(422, "invalid_rows")
    assert daemon.post("/v1/gradients", json={**on, "rows": [{"x": 1}]}) == problem(422, "invalid_rows", "targets")
    assert daemon.post("/v1/gradients", json={**on, "rows": []}) == problem(422, "no_rows")


# --- gradient_check ---


@pytest.mark.parametrize("spec", [
    {"input_shape": [5], "classes": 3, "layers": [{"type": "dense", "units": 8, "activation": "relu"}]},
    {"input_shape": [5], "outputs": 2, "layers": [{"type": "dense", "units": 8, "activation": "mish"}], "loss": "mse"},
    {"input_shape": [2, 6, 6], "classes": 4, "layers": [
        {"type": "conv2d", "filters": 3, "kernel_size": 3, "padding": "same", "activation": "tanh"},
        {"type": "max_pool2d"}, {"type": "flatten"}, {"type": "dropout", "rate": 0.3}]},
    {"input_shape": [6, 3], "classes": 2, "layers": [{"type": "lstm", "units": 4}]},
    {"input_shape": [4, 6], "classes": 2, "layers": [{"type": "multi_head_attention", "heads": 2},
                                                     {"type": "layer_norm"}, {"type": "flatten"}]},
], ids=["dense", "mish", "conv", "lstm", "attention"])
def test_gradient_check(daemon, spec):
    reply = daemon.post("/v1/gradient_check", json={**spec, "max_elements": 40})
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert body["pass"] is True and 0 <= body["worst"] <= 1e-6 == body["limit"]
    assert body["checked"] + body["kinks"] == sum(min(t["elements"], 40) for t in body["tensors"])
    assert body["tensors"][-1]["name"] == "input" and body["worst"] == max(t["worst"] for t in body["tensors"])
    assert body["seconds_numeric"] > body["seconds_backward"] > 0
    assert body["times_as_long"] == pytest.approx(body["seconds_numeric"] / body["seconds_backward"])
    assert body["times_as_long_for_all"] >= body["times_as_long"]


def test_gradient_check_with_a_dataset_and_a_job(daemon):
    daemon.upload("abc", "a,b,c\n" + "".join(f"{i},{i % 3},{'xyz'[i % 3]}\n" for i in range(30)))
    spec = {"dataset": "abc", "target": "c", "layers": [6], "epochs": 1}
    body = daemon.post("/v1/gradient_check", json={**spec, "rows": 2, "max_elements": 0}).json()
    assert body["pass"] is True and body["rows"] == 2 and body["checked"] + body["kinks"] == body["elements"]
    job = daemon.train(spec)
    body = daemon.post("/v1/gradient_check", json={"job": job["id"]}).json()
    assert body["pass"] is True and [t["name"] for t in body["tensors"]] == [
        "dense_1.weight", "dense_1.bias", "dense_2.weight", "dense_2.bias", "input"]


def test_gradient_check_refusals(daemon, problem):
    def post(**body):
        return daemon.post("/v1/gradient_check", json={"input_shape": [4], "layers": [3], **body})

    assert post(rows=0) == problem(422, "invalid", "/rows")
    assert post(max_elements=-1) == problem(422, "invalid", "/max_elements")
    assert post(input_shape=[0]) == problem(422, "invalid_spec", "/input_shape")
    assert post(input_shape=[2] * 5) == problem(422, "invalid_spec", "/input_shape")
    assert post(input_shape=[10**6, 10**6]) == problem(422, "invalid_spec", "/input_shape")
    assert post(outputs=0) == problem(422, "invalid", "/outputs")
    assert post(layers=[0]) == problem(422, "invalid_spec", "/layers/0")
    assert post(layers=[{"type": "dense", "units": 3, "activation": "sgmoid"}]) == problem(422, "invalid_spec", "sigmoid")
    assert post(rows=256, layers=[2000, 2000]) == problem(422, "limit_exceeded", '"limit"')


# --- graph ---


@pytest.fixture(scope="module")
def job(daemon):
    daemon.upload("ab", "a,b,y\n" + "".join(f"{i},{i % 5},{i % 2}\n" for i in range(40)))
    return daemon.train({"dataset": "ab", "target": "y", "layers": [4, {"type": "dropout", "rate": 0.1}], "epochs": 1})


def test_graph_as_text(daemon, job):
    reply = daemon.get(f"/v1/jobs/{job['id']}/graph")
    assert reply.headers["Content-Type"].startswith("text/plain")
    places = [reply.text.index(line) for line in (
        "forward program", "dense_1 = dense(input)", "losses and first error signals", "backward program",
        "parameter gradients", "d dense_1.weight, d dense_1.bias = sum over rows(d dense_1, input)")]
    assert places == sorted(places)
    assert "d input" not in reply.text  # nobody below wants it


def test_graph_as_dot(daemon, job):
    reply = daemon.get(f"/v1/jobs/{job['id']}/graph?format=dot")
    assert reply.headers["Content-Type"].startswith("text/vnd.graphviz")
    text = reply.text
    assert text.startswith("digraph ") and text.rstrip().endswith("}") and text.count("{") == text.count("}")
    statement = re.compile(r'^  ("[^"]*"( -> "[^"]*")?|node|edge)( \[[^]]*(\[[^]]*\][^]]*)*\])?;$|^  // .*$')
    for line in text.splitlines()[1:-1]:
        assert statement.match(line), line
    assert '"input" -> "dense_1";' in text
    assert re.search(r'"dense_1.activation" -> "dense_1" \[style=dashed', text)
    assert re.search(r'"loss 0" -> "dense_2" \[style=dashed', text)
    assert "d dense_1.weight" in text


def test_graph_refusals(daemon, job, problem):
    assert daemon.get(f"/v1/jobs/{job['id']}/graph?format=png") == problem(400, "invalid_query", "dot")
    assert daemon.get("/v1/jobs/job_none/graph") == problem(404, "not_found")
