"""POST /v1/trace: published worked examples digit for digit, and steps that are the trainer's own."""

import copy
import math
import random
import re

import pytest

# Matt Mazur, "A Step by Step Backpropagation Example": two inputs, two hidden and two output units, sigmoid, rate 0.5.
# The biases are not updated there. Half the sum of squares of two outputs is their mean: mse.
MAZUR = {
    "layers": [
        {"type": "dense", "units": 2, "activation": "sigmoid", "weights": [[0.15, 0.20], [0.25, 0.30]],
         "biases": [0.35, 0.35]},
        {"type": "dense", "units": 2, "activation": "sigmoid", "weights": [[0.40, 0.45], [0.50, 0.55]],
         "biases": [0.60, 0.60]}],
    "loss": "mse", "optimizer": {"type": "sgd", "lr": 0.5}, "update_biases": False,
    "inputs": [[0.05, 0.10]], "targets": [[0.01, 0.99]]}


def trace(daemon, spec, **changes):
    reply = daemon.post("/v1/trace", json={**spec, **changes})
    assert reply.status_code == 200, reply.text
    return reply.json()


def digits(value, published):
    """Whether a number rounds to what was printed."""
    places = len(published.partition(".")[2])
    return f"{value:.{places}f}" == published


@pytest.fixture(scope="module")
def mazur(daemon):
    return trace(daemon, MAZUR)


def parameters(reply):
    return {name: values for layer in reply["layers"] for name, values in layer["parameters"].items()}


class TestMazur:
    def test_forward(self, mazur):
        hidden, output = mazur["layers"]
        assert digits(hidden["z"][0][0], "0.3775") and digits(hidden["a"][0][0], "0.593269992")
        assert digits(hidden["a"][0][1], "0.596884378")
        assert digits(output["z"][0][0], "1.105905967")
        assert digits(output["a"][0][0], "0.75136507") and digits(output["a"][0][1], "0.772928465")
        assert mazur["outputs"][0]["prediction"] == output["a"]

    def test_loss(self, mazur):
        assert digits(mazur["loss"], "0.298371109") and mazur["outputs"][0]["row_losses"] == [mazur["loss"]]

    def test_error_signals(self, mazur):
        hidden, output = mazur["layers"]
        assert digits(output["dL_da"][0][0], "0.74136507") and digits(output["dL_dz"][0][0], "0.138498562")
        assert digits(output["dL_dz"][0][1], "-0.0380982366") or digits(output["dL_dz"][0][1], "-0.0380982365")
        assert digits(hidden["dL_da"][0][0], "0.036350306")

    def test_gradients(self, mazur):
        gradient = {name: values["gradient"] for name, values in parameters(mazur).items()}
        assert digits(gradient["dense_2.weight"][0][0], "0.082167041")
        assert digits(gradient["dense_1.weight"][0][0], "0.000438568")

    def test_update(self, mazur):
        after = {name: values["after"] for name, values in parameters(mazur).items()}
        published = {
            "dense_1.weight": [["0.149780716", "0.19956143"], ["0.24975114", "0.29950229"]],
            "dense_2.weight": [["0.35891648", "0.408666186"], ["0.511301270", "0.561370121"]]}
        for name, rows in published.items():
            for row, texts in zip(after[name], rows):
                assert all(map(digits, row, texts)), (name, row)
        assert after["dense_1.bias"] == [0.35, 0.35] and after["dense_2.bias"] == [0.6, 0.6]

    def test_after_ten_thousand_steps(self, daemon):
        assert digits(trace(daemon, MAZUR, steps=10000)["loss"], "0.0000351085")

    def test_the_worksheet(self, daemon):
        text = daemon.post("/v1/trace?render=text", json=MAZUR).text
        steps = [text.index(word) for word in ("1. FORWARD", "2. LOSS", "3. BACKWARD", "4. UPDATE", "AND THEN")]
        assert steps == sorted(steps)
        for number in ("0.298371109", "0.138498562", "0.35891648", "0.408666186", "0.149780716"):
            assert re.search(rf"(?<![\d.]){re.escape(number)}\b", text), number

    def test_with_biases(self, daemon, mazur):
        both = trace(daemon, MAZUR, update_biases=True)
        bias = parameters(both)["dense_2.bias"]
        assert bias["after"] == pytest.approx([0.6 - 0.5 * g for g in bias["gradient"]], abs=1e-15)
        assert both["loss_after"] < mazur["loss_after"] < mazur["loss"]

    def test_parameters_by_name(self, daemon, mazur):
        """The same numbers set by the names of the tensors."""
        layers = [{k: v for k, v in layer.items() if k not in ("weights", "biases")} for layer in MAZUR["layers"]]
        values = {f"dense_{i + 1}.{tensor}": layer[member] for i, layer in enumerate(MAZUR["layers"])
                  for tensor, member in (("weight", "weights"), ("bias", "biases"))}
        named = trace(daemon, {**MAZUR, "layers": layers}, parameters=values)
        assert (named["loss"], parameters(named)) == (mazur["loss"], parameters(mazur))


def test_classes(daemon):
    """Softmax and cross entropy by hand: dL/dz = (p - t) / rows."""
    reply = trace(daemon, {"layers": [{"type": "dense", "units": 3, "weights": [[1, 0], [0, 1], [1, 1]],
                                       "biases": [0, 0, 0]}],
                           "loss": "cross_entropy", "inputs": [[1, 2], [0, 1]], "targets": [2, 0]})
    logits = [[1, 2, 3], [0, 1, 1]]
    for row, (z, label) in enumerate(zip(logits, [2, 0])):
        p = [math.exp(v) / sum(map(math.exp, z)) for v in z]
        assert reply["outputs"][0]["prediction"][row] == pytest.approx(p, rel=1e-12)
        assert reply["outputs"][0]["row_losses"][row] == pytest.approx(-math.log(p[label]), rel=1e-12)
        assert reply["layers"][0]["dL_dz"][row] == pytest.approx(
            [(v - (j == label)) / 2 for j, v in enumerate(p)], abs=1e-12)


def test_clipping_and_penalty(daemon):
    spec = {"layers": [{"type": "dense", "units": 1, "weights": [[3]], "use_bias": False, "l2": 0.5}], "loss": "mse",
            "optimizer": {"type": "sgd", "lr": 1}, "clip_grad_norm": 2, "inputs": [[1]], "targets": [[1]]}
    reply = trace(daemon, spec)
    weight = parameters(reply)["dense_1.weight"]
    assert (reply["loss"], reply["penalty"]) == (4, 4.5)  # (3 - 1)^2, and 0.5 * 3^2
    assert weight["gradient"] == [[7]] and reply["gradient_norm"] == 7  # 2 (3 - 1) + 2 * 0.5 * 3
    assert reply["gradient_scale"] == pytest.approx(2 / 7) and weight["after"] == [[pytest.approx(1)]]


@pytest.mark.parametrize("optimizer", [
    {"type": "sgd", "lr": 0.1, "momentum": 0.9}, {"type": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"type": "adam", "lr": 0.01}, {"type": "adamw", "lr": 0.01, "weight_decay": 0.1}],
    ids=lambda o: "-".join(map(str, o.values())))
def test_steps_are_torchs(daemon, optimizer):
    """Five steps in double are PyTorch's five steps in double."""
    torch = pytest.importorskip("torch")
    weights, x, y = [[0.3, -0.2], [0.1, 0.4]], [[0.5, -1.0], [2.0, 0.25]], [[1.0, 0.0], [0.5, -0.5]]
    reply = trace(daemon, {"layers": [{"type": "dense", "units": 2, "activation": "tanh", "weights": weights,
                                       "biases": [0.1, -0.1]}], "loss": "mse", "optimizer": optimizer, "steps": 5,
                           "inputs": x, "targets": y})
    layer = torch.nn.Linear(2, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights, dtype=torch.float64))
        layer.bias.copy_(torch.tensor([0.1, -0.1], dtype=torch.float64))
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    options = {k: v for k, v in optimizer.items() if k != "type"}
    step = kinds[optimizer["type"]](layer.parameters(), **options)
    inputs, targets = torch.tensor(x, dtype=torch.float64), torch.tensor(y, dtype=torch.float64)
    for _ in range(5):
        step.zero_grad()
        torch.nn.functional.mse_loss(torch.tanh(layer(inputs)), targets).backward()
        step.step()
    after = parameters(reply)["dense_1.weight"]["after"]
    assert after[0] + after[1] == pytest.approx(layer.weight.detach().flatten().tolist(), rel=1e-12)
    assert parameters(reply)["dense_1.bias"]["after"] == pytest.approx(layer.bias.detach().tolist(), rel=1e-12)


def test_a_job_and_rows_of_its_dataset(daemon):
    rows = "".join(f"{x},{(x * 7) % 5},{x * 0.5 - 1}\n" for x in range(40))
    daemon.upload("lines", "a,b,y\n" + rows)
    spec = {"dataset": "lines", "target": "y", "layers": [4], "epochs": 3}
    job = daemon.train(spec)
    reply = trace(daemon, {"job": job["id"], "checkpoint": "latest", "rows": [3, 5]})
    assert reply["rows"] == 2 and [layer["name"] for layer in reply["layers"]] == ["dense_1", "dense_2"]
    weights = daemon.get(f"/v1/jobs/{job['id']}/weights?format=json&checkpoint=latest").json()["tensors"]
    for before, stored in zip(parameters(reply)["dense_1.weight"]["before"], weights["dense_1.weight"]["data"]):
        assert before == pytest.approx(stored, rel=1e-6)
    # the spec by itself begins where the job began, with the same scaling of the rows
    first = trace(daemon, {**spec, "rows": [3, 5]})
    assert first["input"] == reply["input"] and first["outputs"][0]["target"] == reply["outputs"][0]["target"]


def test_other_layers(daemon):
    """A picture through a convolution, in its own shape."""
    reply = trace(daemon, {"layers": [{"type": "conv2d", "filters": 1, "kernel_size": 2, "use_bias": False},
                                      {"type": "flatten"}, {"type": "dense", "units": 1}],
                           "parameters": {"conv2d_1.weight": [1, 0, 0, -1], "dense_1.weight": [[1, 1, 1, 1]],
                                          "dense_1.bias": [0]},
                           "loss": "mse", "inputs": [[[[1, 2, 3], [4, 5, 6], [7, 8, 10]]]], "targets": [[0]]})
    assert reply["layers"][0]["z"] == [[[[-4, -4], [-4, -5]]]]
    assert reply["loss"] == 17 ** 2
    assert reply["layers"][0]["dL_dz"] == [[[[-34, -34], [-34, -34]]]]


def test_refusals(daemon, problem):
    def post(**changes):
        return daemon.post("/v1/trace", json={**MAZUR, **changes})

    assert post(inputs=[[1, 2], [3]]) == problem(422, "invalid_spec", "/inputs/1")
    assert post(inputs=[1, 2], targets=[1, 2]) == problem(422, "invalid_spec", "each row is a list")
    assert post(inputs=[[1, "x"]]) == problem(422, "invalid_spec", "finite numbers")
    assert post(targets=[[0.5, 1], [1, 2]]) == problem(422, "invalid_spec", "as many rows")
    assert post(inputs=[], targets=[]) == problem(422, "invalid_spec", "/inputs")
    assert post(parameters={"dense_1.wieght": [1]}) == problem(422, "invalid", '"suggestion":"dense_1.weight"')
    assert post(parameters={"dense_1.weight": [1]}) == problem(422, "invalid", "takes 4 numbers")
    assert post(parameters={"dense_1.weight": "x"}) == problem(422, "invalid", "must be numbers")
    assert post(steps=0) == problem(422, "invalid", "/steps")
    assert post(steps="many") == problem(422, "invalid", "/steps")
    assert post(update_biases=1) == problem(422, "invalid", "/update_biases")
    assert post(dataset="iris") == problem(422, "invalid", "/dataset")
    assert post(layer=[1]) == problem(422, "invalid_spec", "/layer")
    assert post(layers=[1000, 1000]) == problem(413, "too_large", "200000")
    assert daemon.post("/v1/trace", json={}) == problem(422, "invalid_spec", '\\"inputs\\" and \\"targets\\"')
    assert daemon.post("/v1/trace", json={"job": "job_none"}) == problem(404, "not_found")
    assert daemon.post("/v1/trace", json={"job": 5}) == problem(422, "invalid", "/job")
    assert daemon.post("/v1/trace", json={"job": "job_none", "layers": [1]}) == problem(422, "invalid", "/layers")
    assert daemon.post("/v1/trace", data="[1]").status_code in (400, 422)
    assert daemon.post("/v1/trace?render=csv", json=MAZUR).status_code in (400, 406)


def test_schedule_and_clipping_by_value(daemon, problem):
    spec = {"layers": [{"type": "dense", "units": 1, "weights": [[3]], "use_bias": False}], "loss": "mse",
            "optimizer": {"type": "sgd", "lr": 0.1}, "inputs": [[2]], "targets": [[0]], "clip_grad_value": 3}
    reply = trace(daemon, spec)
    assert parameters(reply)["dense_1.weight"]["gradient"] == [[24]]
    assert parameters(reply)["dense_1.weight"]["after"] == [[pytest.approx(3 - 0.1 * 3)]]
    reply = trace(daemon, spec, lr_schedule={"type": "exponential", "gamma": 0.5}, steps=3)
    assert reply["rate"] == pytest.approx(0.025)
    assert parameters(reply)["dense_1.weight"]["after"] == [[pytest.approx(3 - 3 * (0.1 + 0.05 + 0.025))]]
    assert daemon.post("/v1/trace", json={**spec, "lr_schedule": "plateau"}) == problem(422, "invalid", "plateau")


def places(value, at=()):
    """The places of all values within a value."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield at + (key,)
        yield from places(child, at + (key,))


def test_whatever_is_sent(daemon):
    """Bodies with values of all kinds in wrong places are answered, and never with a fault of ours."""
    dice = random.Random(7)
    values = [None, True, 0, -1, 2, 1e308, 3.5, "x", [], {}, [[]], [[1]], [[[[[1]]]]], 10**12, [0] * 50, "relu", [None]]
    picture = {"layers": [{"type": "conv2d", "filters": 2, "kernel_size": 2}, {"type": "flatten"}, 3],
               "inputs": [[[[1, 2, 3], [4, 5, 6], [7, 8, 10]]]], "targets": [2],
               "parameters": {"conv2d_1.bias": [1, 2]}}
    for _ in range(120):
        body = copy.deepcopy(dice.choice([MAZUR, picture]))
        for _ in range(dice.randint(1, 2)):
            at = dice.choice(list(places(body)))
            owner = body
            for key in at[:-1]:
                owner = owner[key]
            owner[at[-1]] = copy.deepcopy(dice.choice(values))
        for path in ("/v1/trace", "/v1/trace?render=text", "/v1/gradients"):
            reply = daemon.post(path, json=body)
            assert reply.status_code in (200, 413, 422), (body, reply.text)
