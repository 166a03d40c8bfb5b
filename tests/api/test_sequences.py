"""Sequences through the API: recurrent layers that remember, windows of rows, and splits that keep together what
belongs together."""

import gzip
import os
import pathlib
import random

import numpy as np
import pytest
import safetensors.torch
import torch

import data
import smooth

STEPS = 8


def recall(groups=160, steps=STEPS, seed=5):
    """A sign at the first step of a group (where start is 1), and noise after it; `first` is that sign. Rows of several
    groups take turns, so that only `who` and `time` tell which belong together and in which order."""
    r = random.Random(seed)
    rows = []
    for who in range(groups):
        sign = r.choice((-1, 1))
        for t in range(steps):
            x = sign if t == 0 else r.gauss(0, 1)
            rows.append([who, t, int(t == 0), f"{x:.3f}", ("minus", "plus")[sign > 0]])
    r.shuffle(rows)
    return data.csv(["who", "time", "start", "x", "first"], rows)


def recall_spec(layers, window=STEPS, **more):
    return {"dataset": {"name": "recall", "target": "first", "split_by": "who", "order_by": "time", "scale": "none",
                        "window": {"rows": window, "stride": window, "by": "who"}},
            "layers": layers, "epochs": 40, "batch_size": 16, "optimizer": {"type": "adam", "lr": 0.01}, "seed": 1,
            **more}


@pytest.fixture(scope="module")
def daemon(daemon):
    daemon.upload("recall", recall())
    return daemon


def evaluate(daemon, job, **body):
    reply = daemon.post(f"/v1/jobs/{job['id']}/evaluate", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def accuracy(job):
    return job["metrics"]["best"]["value"] if job["metrics"]["best"]["name"] == "val_accuracy" \
        else job["metrics"]["last"]["val_accuracy"]


LAST = {"type": "lstm", "units": 16}
MEMORIES = {
    "lstm": [LAST],
    "gru": [{"type": "gru", "units": 16}],
    "simple_rnn": [{"type": "simple_rnn", "units": 24, "recurrent_initializer": "orthogonal"}],
    "reverse": [{"type": "simple_rnn", "units": 8, "reverse": True, "activation": "relu"}],
    "stacked": [{"type": "gru", "units": 12, "return_sequences": True}, LAST],
    "sequences": [{"type": "lstm", "units": 8, "return_sequences": True}, 8],
}


@pytest.mark.parametrize("name", MEMORIES)
def test_recurrent_layers_remember(daemon, name):
    job = daemon.train(recall_spec(MEMORIES[name]))
    assert accuracy(job) >= 0.9, job["metrics"]
    assert job["model"]["input_shape"] == [STEPS, 2]


def test_the_task_needs_a_memory(daemon):
    """The last row alone, or a window that does not reach back far enough, says nothing."""
    assert accuracy(daemon.train(recall_spec([16, 16], window=1, epochs=5))) < 0.75
    spec = recall_spec([LAST], window=STEPS - 1, epochs=10)
    spec["dataset"]["window"]["stride"] = STEPS  # rows 0 to 6: it reaches back
    assert accuracy(daemon.train(spec)) > 0.85
    spec["dataset"]["features"] = ["x"]  # without the mark of the first step
    spec["dataset"]["order_by"] = None  # and with the steps in disorder
    assert accuracy(daemon.train(spec)) < 0.85


# --- windows ---


def series(rows=200):
    r = random.Random(9)
    return data.csv(["t", "a", "b", "y"], [[t, f"{r.gauss(0, 1):.4f}", f"{r.gauss(0, 1):.4f}", f"{r.gauss(0, 1):.4f}"]
                                           for t in range(rows)])


def test_windows_share_no_row_across_the_split(daemon):
    daemon.upload("series", series())
    spec = {"dataset": {"name": "series", "target": "y", "ignore": ["t"], "validation_split": 0.2, "test_split": 0.1,
                        "window": {"rows": 20}}, "layers": [{"type": "gru", "units": 3}], "epochs": 1}
    job = daemon.train(spec)
    rows = {part: evaluate(daemon, job, split=part)["rows"] for part in ("train", "validation", "test", "all")}
    # 181 windows; between two parts the 19 that reach over the cut are left out
    assert sum(rows[p] for p in ("train", "validation", "test")) == rows["all"] == 181 - 2 * 19
    assert (rows["validation"], rows["test"]) == (36, 18)
    assert any("last rows of the table" in w["detail"] for w in job["warnings"])
    # the same by a column of times
    spec["dataset"]["order_by"] = "t"
    del spec["dataset"]["ignore"]
    assert {part: evaluate(daemon, daemon.train(spec), split=part)["rows"] for part in rows} == rows


def test_windows_are_counted_by_group_and_stride(daemon):
    lengths = [30, 12, 9, 41]
    rows = [[g, i * 0.1, (g + i) % 3] for g, n in enumerate(lengths) for i in range(n)]
    daemon.upload("groups", data.csv(["who", "x", "kind"], rows))
    spec = {"dataset": {"name": "groups", "target": "kind", "validation_split": 0.0, "task": "classification",
                        "window": {"rows": 10, "stride": 5, "by": "who"}}, "layers": [LAST], "epochs": 1}
    job = daemon.train(spec)
    expected = sum((n - 10) // 5 + 1 for n in lengths if n >= 10)
    assert evaluate(daemon, job, split="train")["rows"] == expected
    told = [w["detail"] for w in job["warnings"] if w["code"] == "short_groups"]
    assert told and "1 of 4 sequences" in told[0] and "9 rows" in told[0]


def test_a_window_is_scaled_by_all_its_rows(daemon):
    """Means come from every row of the training windows, not from their last rows."""
    rows = [[100.0 if i % 4 == 3 else i % 4, i % 2] for i in range(80)]
    daemon.upload("spikes", data.csv(["x", "y"], rows))
    job = daemon.train({"dataset": {"name": "spikes", "target": "y", "validation_split": 0.0,
                                    "window": {"rows": 4, "stride": 4}}, "layers": [LAST], "epochs": 1})
    header = safetensors_header(daemon, job)
    import json
    x = json.loads(header["transform"])["features"][0]
    assert abs(x["shift"] - 103 / 4) < 1e-9


def safetensors_header(daemon, job):
    import json
    import struct
    body = daemon.get(f"/v1/jobs/{job['id']}/weights.safetensors").content
    (size,) = struct.unpack("<Q", body[:8])
    return json.loads(body[8:8 + size])["__metadata__"]


# --- splits ---


def test_split_by_keeps_groups_together(daemon):
    """Each group has a label that nothing predicts but having seen the group."""
    r = random.Random(3)
    rows = []
    for who in range(60):
        place, label = [r.gauss(0, 1) for _ in range(4)], r.choice("ab")
        rows += [[f"p{who}", *[f"{v + r.gauss(0, 0.02):.4f}" for v in place], label] for _ in range(20)]
    daemon.upload("people", data.csv(["who", "a", "b", "c", "d", "kind"], rows))
    spec = {"dataset": {"name": "people", "target": "kind", "ignore": ["who"]}, "layers": [64, 64], "epochs": 60,
            "optimizer": {"type": "adam", "lr": 0.01}}
    assert accuracy(daemon.train(spec)) > 0.95  # by chance: every group is known from the training rows
    spec["dataset"].update(split_by="who", ignore=[], test_split=0.1)
    job = daemon.train(spec)
    assert job["metrics"]["last"]["val_accuracy"] < 0.8
    rows = {part: evaluate(daemon, job, split=part)["rows"] for part in ("train", "validation", "test")}
    assert rows == {"train": 840, "validation": 240, "test": 120}
    assert any(w["code"] == "left_out" and "'who'" in w["detail"] for w in job["warnings"])
    assert job["spec"]["dataset"]["stratify"] is False


def test_order_by_splits_by_time(daemon):
    """What holds in the first four fifths of the time is turned round in the last one."""
    r = random.Random(4)
    rows = []
    for t in range(600):
        x = r.gauss(0, 1)
        rows.append([t // 2, f"{x:.4f}", ("no", "yes")[(x > 0) == (t < 480)]])
    r.shuffle(rows)
    daemon.upload("drift", data.csv(["day", "x", "y"], rows))
    spec = {"dataset": {"name": "drift", "target": "y", "ignore": ["day"]}, "layers": [16], "epochs": 30,
            "optimizer": {"type": "adam", "lr": 0.01}}
    assert daemon.train(spec)["metrics"]["last"]["val_accuracy"] > 0.7
    spec["dataset"].update(order_by="day", ignore=[])
    job = daemon.train(spec)
    assert job["metrics"]["last"]["accuracy"] > 0.95 and job["metrics"]["last"]["val_accuracy"] < 0.1
    assert evaluate(daemon, job, split="validation")["rows"] == 120


def test_the_same_split_every_time(daemon):
    jobs = [daemon.train(recall_spec([LAST], epochs=2, threads=n)) for n in (1, 2)]
    assert len({smooth.fingerprint(daemon, job["id"]) for job in jobs}) == 1
    assert smooth.fingerprint(daemon, daemon.train(recall_spec([LAST], epochs=2, seed=2))["id"]) \
        != smooth.fingerprint(daemon, jobs[0]["id"])


def test_every_instruction_set_comes_to_the_same_bytes(make_daemon):
    """An lstm over a gru over a simple_rnn, on windows, with any threads and any instruction set."""
    layers = [{"type": "simple_rnn", "units": 17, "return_sequences": True, "reverse": True},
              {"type": "gru", "units": 19, "return_sequences": True}, {"type": "lstm", "units": 21}]
    found = {}
    for simd, threads in (("generic", 1), ("avx2", 2), ("avx512", 3), ("neon", 3), ("", 5)):
        try:
            daemon = make_daemon("--threads", str(threads), env={"BACKPROPD_SIMD": simd} if simd else None)
        except AssertionError:
            continue  # this CPU does not have it
        daemon.upload("recall", recall(groups=40))
        job = daemon.train(recall_spec(layers, epochs=2, threads=threads))
        found[simd, threads] = smooth.fingerprint(daemon, job["id"], "latest")
    assert len(set(found.values())) == 1, found


def test_a_resolved_spec_means_the_same(daemon):
    job = daemon.train(recall_spec(MEMORIES["stacked"], epochs=1))
    again = daemon.train(job["spec"])
    assert again["spec"] == job["spec"]
    assert smooth.fingerprint(daemon, again["id"]) == smooth.fingerprint(daemon, job["id"])
    layers = {kind["name"]: kind for kind in daemon.get("/v1/capabilities").json()["layers"]}
    for name in ("simple_rnn", "lstm", "gru"):
        assert layers[name]["available"]
        assert {"units", "return_sequences", "reverse", "recurrent_initializer"} \
            <= {p["name"] for p in layers[name]["parameters"]}


def test_words_in_a_row(daemon):
    """Codes through an embedding into a recurrent layer: is there a "not" before the last word? Once as the columns of
    a row, once as a window of rows with one word each."""
    r = random.Random(8)
    words = ["good", "bad", "very", "so", "not"]
    table, column = [], []
    for who in range(300):
        text = [r.choice(words[2:] if r.random() < 0.4 else words[2:4]) for _ in range(4)] + [r.choice(words[:2])]
        mood = ("down", "up")[(text[-1] == "good") != ("not" in text)]
        table.append(text + [mood])
        column += [[who, word, mood] for word in text]
    daemon.upload("sentences", data.csv([f"w{i}" for i in range(5)] + ["mood"], table))
    daemon.upload("words", data.csv(["who", "word", "mood"], column))
    code = {"encode": "code"}
    more = {"epochs": 40, "batch_size": 16, "optimizer": {"type": "adam", "lr": 0.01}}
    embedding = {"type": "embedding", "input_dim": 8, "output_dim": 6}
    job = daemon.train({"dataset": {"name": "sentences", "target": "mood",
                                    "columns": {f"w{i}": code for i in range(5)}},
                        "layers": [embedding, {"type": "gru", "units": 12}], **more})
    assert job["metrics"]["last"]["val_accuracy"] > 0.9, job["metrics"]
    job = daemon.train({"dataset": {"name": "words", "target": "mood", "columns": {"word": code},
                                    "window": {"rows": 5, "stride": 5, "by": "who"}},
                        "layers": [{"type": "flatten"}, embedding, {"type": "lstm", "units": 12}], **more})
    assert job["metrics"]["last"]["val_accuracy"] > 0.9, job["metrics"]


# --- using it ---


@pytest.fixture(scope="module")
def trained(daemon):
    return daemon.train(recall_spec([{"name": "memory", "type": "lstm", "units": 9}], epochs=20))


def windows(n, seed=1):
    r = random.Random(seed)
    return [[[int(t == 0), round(r.gauss(0, 1), 3)] for t in range(STEPS)] for _ in range(n)]


def predict(daemon, job, rows, **options):
    reply = daemon.post(f"/v1/jobs/{job['id']}/predict", **({"json": {"rows": rows}} if rows else options))
    assert reply.status_code == 200, reply.text
    return [p["probabilities"]["plus"] for p in reply.json()["predictions"]]


def test_torch_comes_to_the_same_predictions(daemon, trained):
    tensors = safetensors.torch.load(daemon.get(f"/v1/jobs/{trained['id']}/weights.safetensors").content)
    layers = {}
    for name, tensor in tensors.items():
        layer, _, rest = name.partition(".")
        layers.setdefault(layer, {})[rest] = tensor
    memory, (out,) = torch.nn.LSTM(2, 9, batch_first=True), [v for k, v in layers.items() if k != "memory"]
    memory.load_state_dict(layers["memory"], strict=True)
    linear = torch.nn.Linear(9, 2)
    linear.load_state_dict(out, strict=True)
    rows = windows(20)
    with torch.no_grad():
        expected = linear(memory(torch.tensor(rows))[0][:, -1]).softmax(1)[:, 1].numpy()
    assert np.abs(np.array(predict(daemon, trained, rows)) - expected).max() <= 1e-5


def test_windows_come_in_several_forms(daemon, trained):
    rows = windows(3)
    expected = predict(daemon, trained, rows)
    flat = [row for window in rows for row in window]
    assert predict(daemon, trained, flat) == expected
    assert predict(daemon, trained, [{"start": s, "x": x, "who": 5} for s, x in flat]) == expected
    named = [[{"start": s, "x": x} for s, x in window] for window in rows]
    assert predict(daemon, trained, named) == expected
    table = "start,x\n" + "".join(f"{s},{x}\n" for s, x in flat)
    assert predict(daemon, trained, None, data=table) == expected
    assert predict(daemon, trained, rows[0]) == expected[:1]


def test_windows_that_do_not_fit(daemon, trained, problem):
    rows = windows(2)
    path = f"/v1/jobs/{trained['id']}/predict"
    assert problem(422, "invalid_rows", "windows of 8 rows") == daemon.post(path, json={"rows": rows[0][:7]})
    reply = daemon.post(path, json={"rows": [rows[0], rows[1][:5]]})
    assert problem(422, "invalid_rows", "/rows/1") == reply
    rows[1][3][1] = "much"
    reply = daemon.post(path, json={"rows": rows})
    assert problem(422, "invalid_rows") == reply
    assert reply.json()["errors"][0]["pointer"] == "/rows/1/3/1"
    assert problem(422, "invalid_rows", "windows of 8") == daemon.post(path, data="start,x\n1,2\n0,1\n")


def test_another_dataset_is_evaluated_in_windows(daemon, trained):
    daemon.upload("others", recall(groups=30, seed=77))
    result = evaluate(daemon, trained, dataset="others")
    assert result["rows"] == 30 and result["metrics"]["accuracy"] > 0.85
    daemon.upload("nobody", recall(groups=30, seed=78).replace("who", "whose"))
    assert daemon.post(f"/v1/jobs/{trained['id']}/evaluate", json={"dataset": "nobody"}).status_code in (409, 422)


# --- images as sequences ---


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def test_an_image_is_read_line_by_line(daemon, problem):
    """Which of the upper lines is lit: the last line that is read does not say."""
    r = np.random.default_rng(1)
    label = r.integers(0, 3, 240).astype(np.uint8)
    images = r.integers(0, 60, (240, 6, 5)).astype(np.uint8)
    for image, k in zip(images, label):
        image[k] += 150
    reply = daemon.post("/v1/datasets", files={"name": (None, "lines"), "inputs": ("i", idx(images)),
                                               "targets": ("t", idx(label))})
    assert reply.status_code == 201, reply.text
    spec = {"dataset": {"name": "lines", "input_shape": [6, 5]}, "layers": [{"type": "gru", "units": 12}],
            "epochs": 40, "optimizer": {"type": "adam", "lr": 0.01}}
    job = daemon.train(spec)
    assert job["model"]["input_shape"] == [6, 5] and accuracy(job) > 0.9
    body = {"rows": images[:4].tolist()}
    reply = daemon.post(f"/v1/jobs/{job['id']}/predict", json=body).json()
    assert [p["label"] for p in reply["predictions"]] == label[:4].tolist()
    del spec["dataset"]["input_shape"]
    assert problem(422, "invalid_spec", "give dataset.input_shape two extents") == daemon.post("/v1/jobs", json=spec)


# --- mistakes ---


def refused(daemon, problem, spec, pointer, word):
    reply = daemon.post("/v1/jobs", json=spec)
    assert problem(422, "invalid_spec", word) == reply
    assert pointer in [e["pointer"] for e in reply.json()["errors"]], reply.text


def test_mistakes_are_explained(daemon, problem):
    def spec(**dataset):
        return {"dataset": {"name": "recall", "target": "first", **dataset}, "layers": [LAST]}

    refused(daemon, problem, spec(), "/layers/0", "needs a sequence [steps, features], but [4] arrives")
    refused(daemon, problem, spec(), "/layers/0", "set dataset.window")
    refused(daemon, problem, spec(window={"rows": 9, "by": "who"}), "/dataset/window/rows", "longest sequence has 8")
    refused(daemon, problem, spec(window={"rows": 8, "by": "whom"}), "/dataset/window/by", "did you mean")
    refused(daemon, problem, spec(split_by="nobody"), "/dataset/split_by", "no column 'nobody'")
    refused(daemon, problem, spec(order_by="nowhen"), "/dataset/order_by", "no column 'nowhen'")
    refused(daemon, problem, spec(window={"rows": 0}), "/dataset/window/rows", "at least 1")
    refused(daemon, problem, spec(window={"by": "who"}), "/dataset/window/rows", "required")
    refused(daemon, problem, spec(window=8), "/dataset/window", "object")
    refused(daemon, problem, spec(split_by="who", stratify=True), "/dataset/stratify", "split_by")
    bad = spec(window={"rows": 8, "by": "who"})
    bad["layers"] = [{"type": "lstm", "units": 4, "kernel_initializer": "zeros", "recurrent_initializer": "ones"}]
    refused(daemon, problem, bad, "/layers/0/kernel_initializer", "symmetry")
    bad["layers"] = [{"type": "simple_rnn", "units": 4, "activation": "gelu"}]
    refused(daemon, problem, bad, "/layers/0", "tanh or relu")


def test_a_missing_time_is_a_mistake(daemon, problem):
    daemon.upload("holes", data.csv(["t", "x", "y"], [[i if i != 5 else "", i, i % 2] for i in range(20)]))
    refused(daemon, problem, {"dataset": {"name": "holes", "target": "y", "order_by": "t"}, "layers": [4]},
            "/dataset/order_by", "every row needs its place in time")


# --- on real images ---

MNIST = pathlib.Path(os.environ.get("BACKPROPD_TEST_DATA", "/nonexistent")) / "mnist"


@pytest.mark.skipif(not MNIST.is_dir(), reason="BACKPROPD_TEST_DATA is not set")
def test_an_lstm_reads_mnist(daemon):
    files = {"name": (None, "mnist")}
    for part, name in (("inputs", "train-images-idx3"), ("targets", "train-labels-idx1"),
                       ("test_inputs", "t10k-images-idx3"), ("test_targets", "t10k-labels-idx1")):
        files[part] = (name, gzip.decompress((MNIST / f"{name}-ubyte.gz").read_bytes()))
    assert daemon.post("/v1/datasets", files=files).status_code == 201
    job = daemon.submit({"dataset": {"name": "mnist", "input_shape": [28, 28], "validation_split": 0.05},
                         "layers": [{"type": "lstm", "units": 64}], "epochs": 4, "batch_size": 64,
                         "optimizer": {"type": "adam", "lr": 0.003}})
    job = daemon.wait(job["id"], patience=1800)
    assert job["metrics"]["last"]["test_accuracy"] >= 0.975, job["metrics"]
