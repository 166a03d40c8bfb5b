"""Trained weights, as other programs see them."""

import io
import json
import os
import sqlite3
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

import data

SPEC = {"name": "flowers", "dataset": {"name": "flowers", "target": "species", "scale": "none"}, "layers": [16, 8],
        "epochs": 8, "seed": 7}
ROWS = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.7, 4.5, 1.4], [6.7, 3.1, 5.7, 2.2], [0.0, 0.0, 0.0, 0.0]]
CLASSES = ["setosa", "versicolor", "virginica"]


@pytest.fixture(scope="module")
def job(daemon):
    daemon.upload("flowers", data.flowers())
    return daemon.train(SPEC)


@pytest.fixture(scope="module")
def weights(daemon, job):
    return daemon.get(f"/v1/jobs/{job['id']}/weights").content


def header_of(file):
    length = int.from_bytes(file[:8], "little")
    return json.loads(file[8:8 + length]), file[8 + length:]


def layers_of(tensors, job):
    """[(weight, bias)] from the first layer to the last, in the order of the job's model."""
    names = [layer["name"] for layer in job["model"]["layers"] if f"{layer['name']}.weight" in tensors]
    return [(tensors[f"{n}.weight"], tensors[f"{n}.bias"]) for n in names]


def close(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return np.all(np.abs(ours - theirs) <= 1e-5 * np.maximum(1, np.abs(theirs)))


def test_the_reference_reader_takes_them(job, weights):
    tensors = safetensors.numpy.load(weights)
    assert sorted(t.shape for t in tensors.values()) == sorted([(16, 4), (16,), (8, 16), (8,), (3, 8), (3,)])
    assert all(t.dtype == np.float32 and np.isfinite(t).all() for t in tensors.values())
    assert sum(t.size for t in tensors.values()) == job["model"]["parameters"]


def test_the_file_says_where_it_comes_from(job, weights):
    header, body = header_of(weights)
    about = header.pop("__metadata__")
    assert all(isinstance(value, str) for value in about.values())
    assert about["format"] == "pt" and about["seed"] == "7" and about["job"] == job["id"]
    assert about["checkpoint"].startswith("ckpt_") and about["numerics_version"] == "1"
    assert json.loads(about["spec"]) == job["spec"] and json.loads(about["classes"]) == CLASSES
    assert json.loads(about["transform"])
    # tensors lie one after the other, sorted by name, aligned, without gaps
    end = 0
    for name in sorted(header):
        begin, stop = header[name]["data_offsets"]
        assert begin == end and (stop - begin) == 4 * np.prod(header[name]["shape"])
        end = stop
    assert end == len(body) and (len(weights) - len(body)) % 8 == 0


def test_all_formats_hold_the_same_bits(daemon, job, weights):
    reference = safetensors.numpy.load(weights)
    npz = daemon.get(f"/v1/jobs/{job['id']}/weights.npz").content
    assert zipfile.ZipFile(io.BytesIO(npz)).testzip() is None
    archive = np.load(io.BytesIO(npz), allow_pickle=False)
    text = daemon.get(f"/v1/jobs/{job['id']}/weights?format=json").json()["tensors"]
    assert set(archive) == set(text) == set(reference)
    for name, tensor in reference.items():
        assert archive[name].dtype == np.float32 and archive[name].shape == tensor.shape
        assert archive[name].tobytes() == tensor.tobytes()
        assert text[name]["shape"] == list(tensor.shape)
        assert np.array(text[name]["data"], np.float32).tobytes() == tensor.tobytes()


def test_numpy_comes_to_the_same_predictions(daemon, job, weights):
    reply = daemon.post(f"/v1/jobs/{job['id']}/predict", json=ROWS).json()
    a = np.array(ROWS, np.float32)
    *hidden, last = layers_of(safetensors.numpy.load(weights), job)
    for w, b in hidden:
        a = np.maximum(a @ w.T + b, 0)
    z = a @ last[0].T + last[1]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert close([[row["probabilities"][c] for c in CLASSES] for row in reply["predictions"]], p)
    assert [row["label"] for row in reply["predictions"]] == [CLASSES[i] for i in p.argmax(axis=1)]


def test_torch_comes_to_the_same_predictions(daemon, job, weights):
    reply = daemon.post(f"/v1/jobs/{job['id']}/predict", json=ROWS).json()
    tensors = safetensors.torch.load(weights)
    modules = []
    for w, b in layers_of(tensors, job):
        linear = torch.nn.Linear(w.shape[1], w.shape[0])
        linear.load_state_dict({"weight": w, "bias": b}, strict=True)
        modules += [linear, torch.nn.ReLU()]
    with torch.no_grad():
        p = torch.nn.Sequential(*modules[:-1])(torch.tensor(ROWS)).softmax(dim=1).numpy()
    assert close([[row["probabilities"][c] for c in CLASSES] for row in reply["predictions"]], p)


def test_the_same_spec_gives_the_same_bytes(daemon, job, weights):
    again = daemon.train({**SPEC, "threads": 1})
    other = daemon.get(f"/v1/jobs/{again['id']}/weights").content
    assert header_of(other)[1] == header_of(weights)[1]
    another_seed = daemon.train({**SPEC, "seed": 8})
    assert header_of(daemon.get(f"/v1/jobs/{another_seed['id']}/weights").content)[1] != header_of(weights)[1]


@pytest.mark.parametrize("path", ["weights", "weights.npz", "weights?format=json"])
def test_a_broken_download_goes_on(daemon, job, path):
    url = f"/v1/jobs/{job['id']}/{path}"
    whole = daemon.get(url)
    etag, body = whole.headers["ETag"], whole.content
    assert etag.startswith('"sha256-') and int(whole.headers["Content-Length"]) == len(body)
    assert whole.headers["Accept-Ranges"] == "bytes"
    assert daemon.get(url).content == body

    for first in (0, 1, 7, 8, 500, len(body) - 1):
        rest = daemon.get(url, headers={"Range": f"bytes={first}-", "If-Range": etag})
        assert (rest.status_code, rest.headers["ETag"]) == (206, etag) and rest.content == body[first:]
        assert rest.headers["Content-Range"] == f"bytes {first}-{len(body) - 1}/{len(body)}"
    tail = daemon.get(url, headers={"Range": "bytes=-10"})
    assert tail.status_code == 206 and tail.content == body[-10:]
    beyond = daemon.get(url, headers={"Range": f"bytes={len(body)}-"})
    assert beyond.status_code == 416 and beyond.headers["Content-Range"] == f"bytes */{len(body)}"
    changed = daemon.get(url, headers={"Range": "bytes=5-", "If-Range": '"sha256-other"'})
    assert changed.status_code == 200 and changed.content == body
    assert daemon.get(url, headers={"If-None-Match": etag}).status_code == 304
    head = daemon.request("HEAD", url)
    assert head.content == b"" and head.headers["Content-Length"] == str(len(body)) and head.headers["ETag"] == etag


def test_curl_finds_a_name_and_continues(daemon, job, weights, tmp_path):
    url = f"{daemon.url}/v1/jobs/{job['id']}/weights.safetensors"
    daemon.curl("--output-dir", str(tmp_path), "-OJ", url)
    file = tmp_path / "flowers.safetensors"
    assert file.read_bytes() == weights
    file.write_bytes(weights[:100])
    daemon.curl("-C", "-", "-o", str(file), url)
    assert file.read_bytes() == weights


def test_which_weights(daemon, job, weights, problem):
    url = f"/v1/jobs/{job['id']}/weights"
    assert daemon.get(url, params={"checkpoint": "best"}).content == weights
    latest = daemon.get(url, params={"checkpoint": "latest"})
    about = header_of(latest.content)[0]["__metadata__"]
    assert about["epoch"] == str(job["progress"]["epoch"]) and about["step"] == str(job["progress"]["step"])
    assert header_of(weights)[0]["__metadata__"]["epoch"] == str(job["metrics"]["best"]["epoch"])
    by_id = daemon.get(url, params={"checkpoint": job["checkpoints"]["latest"]})
    assert header_of(by_id.content)[1] == header_of(latest.content)[1]

    assert daemon.get(url, params={"checkpoint": "newest"}) == problem(400, "invalid_query", "latest")
    assert daemon.get(url, params={"format": "pickle"}) == problem(400, "invalid_query", "safetensors")
    assert daemon.get(url, params={"checkpoint": "ckpt_01arz3ndektsv4rrffq69g5fav"}) == problem(404, "not_found")
    assert daemon.get("/v1/jobs/job_01arz3ndektsv4rrffq69g5fav/weights") == problem(404, "not_found")


def test_before_the_first_checkpoint_there_is_nothing_to_download(daemon, job, problem):
    running = daemon.submit({**SPEC, "epochs": 100000})
    waiting = [daemon.submit({**SPEC, "epochs": 100000}) for _ in range(4)][-1]  # behind the others in the queue
    assert daemon.get(f"/v1/jobs/{waiting['id']}/weights") == problem(409, "no_checkpoint", "queued")
    assert daemon.post(f"/v1/jobs/{waiting['id']}/predict", json=ROWS) == problem(409, "no_checkpoint", "queued")
    for entry in daemon.get("/v1/jobs", params={"status": "queued"}).json()["data"]:
        daemon.post(f"/v1/jobs/{entry['id']}/cancel")
    # one that trains can be used as soon as it has a checkpoint
    running = daemon.wait(running["id"], lambda j: j["checkpoints"]["latest"])
    assert len(safetensors.numpy.load(daemon.get(f"/v1/jobs/{running['id']}/weights").content)) == 6
    assert daemon.post(f"/v1/jobs/{running['id']}/predict", json=ROWS).status_code == 200
    for entry in daemon.get("/v1/jobs", params={"status": "running"}).json()["data"]:
        daemon.post(f"/v1/jobs/{entry['id']}/cancel")


def memory_of(daemon, field):
    status = open(f"/proc/{daemon.process.pid}/status", encoding="ascii").read()
    return int(status.split(field + ":")[1].split()[0]) * 1024


def test_a_large_model_takes_no_memory_to_download(make_daemon):
    daemon = make_daemon()
    daemon.upload("flowers", data.flowers())
    job = daemon.train({**SPEC, "layers": [2500, 2500], "epochs": 1, "training": {"batch_size": 120}})
    url = f"/v1/jobs/{job['id']}/weights"
    file = daemon.get(url).content
    assert len(file) > 25_000_000
    # tensors that reach over many chunks of the checkpoint arrive whole, wherever the reading begins
    tensors = safetensors.numpy.load(file)
    archive = np.load(io.BytesIO(daemon.get(url + ".npz").content))
    assert all(archive[name].tobytes() == tensor.tobytes() for name, tensor in tensors.items())
    for first in (1_048_575, 1_048_576, 5_000_000):
        part = daemon.get(url, headers={"Range": f"bytes={first}-{first + 2_100_000}"})
        assert part.status_code == 206 and part.content == file[first:first + 2_100_001]
    assert daemon.get(url, params={"format": "json"}).status_code == 422
    # the caches of the store are warm now: what a download takes beyond them is its chunk of 1 MiB
    before = memory_of(daemon, "VmRSS")
    with daemon.get(url, stream=True) as slow:
        head = slow.raw.read(1000)
        assert daemon.get(url).content == file
        if not {"ASAN_OPTIONS", "TSAN_OPTIONS"} & os.environ.keys():  # sanitizers keep what is freed, and shadows
            assert memory_of(daemon, "VmRSS") - before < len(file) / 2
        assert head + slow.raw.read() == file


def test_a_job_whose_checkpoints_cannot_be_read_is_not_shown_without_them(make_daemon, problem):
    daemon = make_daemon()
    daemon.upload("flowers", data.flowers())
    job = daemon.train({**SPEC, "name": "flowers"})
    assert daemon.stop() == 0
    with sqlite3.connect(daemon.data_dir / "backpropd.db") as db:
        db.execute("UPDATE checkpoint SET id = id || id")
    db.close()
    daemon.start()
    for path in (f"/v1/jobs/{job['id']}", "/v1/jobs", f"/v1/jobs/{job['id']}?wait=1"):
        reply = daemon.get(path)
        assert reply == problem(422, "corrupt", "checkpoint") and "etag" not in reply.headers, path
    assert daemon.post(f"/v1/jobs/{job['id']}/stop") == problem(422, "corrupt", "checkpoint")


def test_a_damaged_checkpoint_is_never_handed_out(make_daemon, problem):
    daemon = make_daemon()
    daemon.upload("flowers", data.flowers())
    job = daemon.train(SPEC)
    assert daemon.stop() == 0
    with sqlite3.connect(daemon.data_dir / "backpropd.db") as db:
        [[blob, number, chunk]] = db.execute("SELECT blob, n, bytes FROM chunk").fetchall()
        middle = len(chunk) // 2
        damaged = chunk[:middle] + bytes([chunk[middle] ^ 1]) + chunk[middle + 1:]
        db.execute("UPDATE chunk SET bytes = ? WHERE blob = ? AND n = ?", (damaged, blob, number))
    db.close()
    daemon.start()
    assert daemon.get(f"/v1/jobs/{job['id']}/weights") == problem(500, "corrupt_checkpoint", job["checkpoints"]["latest"])
    for verb, body in (("predict", ROWS), ("evaluate", {})):
        reply = daemon.post(f"/v1/jobs/{job['id']}/{verb}", json=body)
        assert reply == problem(500, "corrupt_checkpoint", job["checkpoints"]["latest"])
