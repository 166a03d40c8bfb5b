"""Datasets as their user sees them: upload in all shapes, look, replace, delete, and what is left on the disk."""

import gzip
import hashlib
import os
import re
import struct
import subprocess
import threading
import time

import pytest

from conftest import EXECUTABLE, PATIENCE, ROOT
from data import csv, flowers
from refusals import HOST, dial, files, inventory
from smooth import fingerprint

SMALL = "p,q,r\n" + "".join(f"{i},{2 * i},{'ab'[i % 2]}\n" for i in range(30))
SPEC = {"dataset": "flowers", "target": "species", "layers": [8], "epochs": 3}


def idx(kind, *shape, data):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + data


def on_disk(daemon):
    return {f.split("/")[0]: sum(g.startswith(f.split("/")[0]) for g in files(daemon)) for f in files(daemon)}


def test_put_get_list_rows(make_daemon):
    d = make_daemon()
    body = flowers().encode()
    reply = d.put("/v1/datasets/flowers", data=body)
    assert reply.status_code == 201 and reply.headers["Location"] == "/v1/datasets/flowers"
    sha = hashlib.sha256(body).hexdigest()
    assert reply.headers["ETag"] == f'"sha256-{sha}"'
    profile = reply.json()
    assert (profile["name"], profile["object"], profile["sha256"], profile["bytes"], profile["rows"]) == \
        ("flowers", "dataset", sha, len(body), 150)
    assert (profile["delimiter"], profile["header"]) == (",", True)
    species = profile["columns"][-1]
    assert (species["name"], species["type"], species["distinct"], species["missing"]) == ("species", "category", 3, 0)
    values = [float(line.split(",")[0]) for line in body.decode().splitlines()[1:]]
    length = profile["columns"][0]
    assert (length["min"], length["max"]) == (min(values), max(values))
    assert length["mean"] == pytest.approx(sum(values) / 150, rel=1e-12) and length["distinct"] == len(set(values))

    again = d.get("/v1/datasets/flowers")
    assert again.json() == profile and again.headers["ETag"] == reply.headers["ETag"]
    unchanged = d.get("/v1/datasets/flowers", headers={"If-None-Match": reply.headers["ETag"]})
    assert unchanged.status_code == 304 and unchanged.content == b""

    rows = d.get("/v1/datasets/flowers/rows?limit=2").json()
    assert [r["species"] for r in rows["data"]] == ["setosa", "versicolor"] and rows["has_more"] is True
    assert float(rows["data"][0]["sepal_length"]) == values[0]

    for name in ("a", "b", "c"):
        d.upload(name, SMALL)
    listed = d.get("/v1/datasets").json()
    assert [x["name"] for x in listed["data"]] == ["a", "b", "c", "flowers"] and listed["has_more"] is False
    page = d.get("/v1/datasets?limit=3").json()
    assert page["has_more"] is True
    assert [x["name"] for x in d.get(f"/v1/datasets?after={page['next']}").json()["data"]] == ["flowers"]
    text = d.get("/v1/datasets?render=text").text.splitlines()
    assert text[0].split() == ["NAME", "ROWS", "BYTES", "SHA256"] and len(text) == 5


def test_the_same_bytes_again(daemon):
    """200, and nothing is stored twice."""
    first = daemon.put("/v1/datasets/same", data=SMALL)
    before = inventory(daemon)
    again = daemon.put("/v1/datasets/same", data=SMALL)
    assert (first.status_code, again.status_code) == (201, 200) and first.json() == again.json()
    assert inventory(daemon) == before
    assert daemon.put("/v1/datasets/twin", data=SMALL).status_code == 201  # another name, the same files
    assert len(inventory(daemon)[2]) == len(before[2])
    assert daemon.delete("/v1/datasets/same").status_code == 204
    assert daemon.train({"dataset": "twin", "target": "r", "layers": [2], "epochs": 1})


def test_replacing_can_be_forbidden(daemon, problem):
    only_new = {"If-None-Match": "*"}
    assert daemon.put("/v1/datasets/once", data=SMALL, headers=only_new).status_code == 201
    before = inventory(daemon)
    assert daemon.put("/v1/datasets/once", data=flowers(), headers=only_new) == problem(412, "exists", "once")
    assert inventory(daemon) == before
    form = {"name": (None, "once"), "data": ("x", flowers())}
    assert daemon.post("/v1/datasets", files=form, headers=only_new) == problem(412, "exists")
    assert inventory(daemon) == before


def test_only_one_of_many_is_the_first(daemon):
    """Uploads of different bytes to one new name at the same moment, none of which may replace: one gets 201."""
    codes = []

    def upload(i):
        reply = daemon.session.put(f"{daemon.url}/v1/datasets/race", data=flowers(60 + i),
                                   headers={"If-None-Match": "*"})
        codes.append(reply.status_code)
    threads = [threading.Thread(target=upload, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(codes) == [201] + 7 * [412]
    sha = daemon.get("/v1/datasets/race").json()["sha256"]
    assert [f for f in files(daemon) if f == f"raw/{sha}"]


def test_nothing_is_left_of_uploads_that_lost(make_daemon):
    d = make_daemon()
    test_only_one_of_many_is_the_first(d)
    assert on_disk(d) == {"raw": 1, "tables": 1}


def test_a_job_keeps_the_bytes_it_was_submitted_with(make_daemon):
    """Running or still waiting: the name may be replaced, or deleted once they have ended; they train on the old."""
    d = make_daemon("--threads", "1", "--workers", "1")
    old = d.upload("flowers", flowers(150, seed=1))["sha256"]
    expected = fingerprint(d, d.train(SPEC)["id"])
    long = d.submit({**SPEC, "epochs": 10_000_000})["id"]
    d.wait(long, lambda j: j["status"] == "running" and j["progress"]["step"] > 0)
    queued = d.submit(SPEC)["id"]
    new = d.upload("flowers", flowers(90, seed=9))["sha256"]
    assert new != old
    assert d.job(queued)["status"] == "queued" and d.job(queued)["dataset"]["sha256"] == old
    step = d.job(long)["progress"]["step"]
    d.wait(long, lambda j: j["progress"]["step"] > step)
    d.post(f"/v1/jobs/{long}/cancel")
    assert d.wait(queued)["status"] == "succeeded"
    assert fingerprint(d, queued) == expected
    other = d.train(SPEC)
    assert other["dataset"]["sha256"] == new and fingerprint(d, other["id"]) != expected
    # The old version is still there for those who need it, and only as long as they do.
    assert d.post(f"/v1/jobs/{queued}/evaluate").status_code == 200
    assert on_disk(d) == {"raw": 2, "tables": 2}
    assert d.stop() == 0
    d.start()
    assert on_disk(d) == {"raw": 2, "tables": 2}
    for job in d.get("/v1/jobs").json()["data"]:
        if job["dataset"]["sha256"] == old:
            assert d.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert on_disk(d) == {"raw": 1, "tables": 1}


def test_a_replaced_version_that_nobody_needs_goes(make_daemon):
    d = make_daemon()
    for seed in range(4):
        d.upload("flowers", flowers(seed=seed))
        assert on_disk(d) == {"raw": 1, "tables": 1}
    sha = d.get("/v1/datasets/flowers").json()["sha256"]
    assert hashlib.sha256((d.data_dir / "raw" / sha).read_bytes()).hexdigest() == sha


def test_delete(make_daemon, problem):
    d = make_daemon("--threads", "1", "--workers", "1")
    d.upload("flowers", flowers())
    job = d.submit({**SPEC, "epochs": 10_000_000})["id"]
    assert d.delete("/v1/datasets/flowers") == problem(409, "in_use", job)
    d.post(f"/v1/jobs/{job}/pause")
    d.wait(job, lambda j: j["status"] == "paused")
    assert d.delete("/v1/datasets/flowers") == problem(409, "in_use", job)
    d.post(f"/v1/jobs/{job}/cancel")
    d.wait(job)
    assert d.delete("/v1/datasets/flowers").status_code == 204
    assert d.get("/v1/datasets/flowers") == problem(404, "not_found")
    assert d.get("/v1/datasets").json()["data"] == []
    assert on_disk(d) == {"raw": 1, "tables": 1}  # the ended job can still be evaluated, and cloned
    assert d.delete(f"/v1/jobs/{job}").status_code == 204
    assert files(d) == []


def mapped(daemon):
    """The tables that the daemon has open."""
    with open(f"/proc/{daemon.process.pid}/maps") as maps:
        return re.findall(r"/tables/(\S+)", maps.read())


def test_jobs_are_made_on_the_dataset_as_it_is_now(make_daemon):
    """What was read for earlier jobs is not used for later ones, and keeps no space on the disk."""
    d = make_daemon("--workers", "1")
    spec = {"dataset": "d", "target": "r", "layers": [2], "epochs": 1}
    tables = set()
    for columns in range(1, 8):
        head = ",".join(f"c{i}" for i in range(columns))
        rows = "".join(",".join(str((7 * r + i) % 13) for i in range(columns)) + f",{'ab'[r % 2]}\n" for r in range(40))
        d.upload("d", f"{head},r\n{rows}")
        for _ in range(2):
            job = d.submit(spec)
            assert job["model"]["input_shape"] == [columns] and job["status"] == "queued" and job["version"] == 1
            tables.update(mapped(d))
        d.wait(job["id"])
    assert d.delete("/v1/datasets/d").status_code == 204
    for job in d.get("/v1/jobs").json()["data"]:
        d.wait(job["id"])
        assert d.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert tables and files(d) == []
    deadline = time.monotonic() + PATIENCE
    while mapped(d) and time.monotonic() < deadline:  # a worker may still be putting its own away
        time.sleep(0.02)
    assert mapped(d) == []
    reply = d.post("/v1/jobs", json=spec)
    assert reply.status_code == 422 and reply.json()["errors"][0]["code"] == "dataset_not_found"


def test_one_file_read_in_two_ways(make_daemon):
    """Two versions of the same bytes: deleting one leaves the other whole."""
    d = make_daemon()
    body = "".join(f"{i},{i * i}\n" for i in range(2, 42))
    assert d.put("/v1/datasets/plain?header=no", data=body).json()["rows"] == 40
    assert d.put("/v1/datasets/named?header=yes", data=body).json()["rows"] == 39
    assert on_disk(d) == {"raw": 1, "tables": 2}
    assert d.delete("/v1/datasets/plain").status_code == 204
    assert on_disk(d) == {"raw": 1, "tables": 1}
    assert len(d.get("/v1/datasets/named/rows?limit=1000").json()["data"]) == 39
    assert d.delete("/v1/datasets/named").status_code == 204
    assert files(d) == []


# id: (file, query, delimiter, header, rows, first row)
SHAPES = {
    "comma": ("a,b\n1,x\n2,y\n", "", ",", True, 2, {"a": 1, "b": "x"}),
    "semicolon": ("a;b\n1;x\n2;y\n", "", ";", True, 2, {"a": 1, "b": "x"}),
    "tab": ("a\tb\n1\tx\n2\ty\n", "", "\t", True, 2, {"a": 1, "b": "x"}),
    "pipe": ("a|b\n1|x\n2|y\n", "", "|", True, 2, {"a": 1, "b": "x"}),
    "crlf": ("a,b\r\n1,x\r\n2,y\r\n", "", ",", True, 2, {"a": 1, "b": "x"}),
    "byte order mark": ("\ufeffa,b\n1,x\n2,y\n", "", ",", True, 2, {"a": 1, "b": "x"}),
    "quotes": ('a,"b ""and"" c"\n1,"x,\n""y"""\n2,"z"\n', "", ",", True, 2, {"a": 1, 'b "and" c': 'x,\n"y"'}),
    "no header": ("1,2\n3,4\n", "", ",", False, 2, {"column_1": 1, "column_2": 2}),
    "header forced": ("1,2\n3,4\n", "?header=true", ",", True, 1, {"1": 3, "2": 4}),
    "header denied": ("a,b\nc,d\n", "?header=false", ",", False, 2, {"column_1": "a", "column_2": "b"}),
    "delimiter forced": ("1,5;2\n2,5;3\n", "?delimiter=;&header=no", ";", False, 2, {"column_1": "1,5", "column_2": 2}),
    "delimiter by name": ("1,5;2\n2,5;3\n", "?delimiter=comma&header=no", ",", False, 2,
                          {"column_1": 1, "column_2": "5;2", }),
    "tsv by format": ("a\tb\n1\tx\n", "?format=tsv", "\t", True, 1, {"a": 1, "b": "x"}),
    "gzip": (gzip.compress(b"a,b\n1,x\n2,y\n"), "", ",", True, 2, {"a": 1, "b": "x"}),
    "gzip in members": (gzip.compress(b"a,b\n1,x\n") + gzip.compress(b"2,y\n"), "", ",", True, 2, {"a": 1, "b": "x"}),
    "one column": ("x\n1\n2\n", "", ",", True, 2, {"x": 1}),
}


def same(a, b):
    return a == b or str(a) == str(b)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_csv(daemon, name):
    body, query, delimiter, header, rows, first = SHAPES[name]
    reply = daemon.put(f"/v1/datasets/shape{query}", data=body.encode() if isinstance(body, str) else body)
    assert reply.status_code in (200, 201), reply.text
    profile = reply.json()
    assert (profile["rows"], profile["header"]) == (rows, header)
    if len(profile["columns"]) > 1:
        assert profile["delimiter"] == delimiter
    got = daemon.get("/v1/datasets/shape/rows?limit=1").json()["data"][0]
    assert list(got) == list(first) and all(same(got[k], first[k]) for k in first), got


def test_missing_values_and_text(daemon):
    rows = [[i if i % 5 else "", ["red", "green", "NA"][i % 3], f"note number {i}", i * 0.5] for i in range(100)]
    profile = daemon.upload("mixed", csv(["n", "color", "note", "y"], rows))
    n, color, note, y = profile["columns"]
    assert (n["type"], n["missing"]) == ("number", 20)
    assert (color["type"], color["missing"], color["distinct"]) == ("category", 33, 2)
    assert note["type"] == "text" and any("note" in w["detail"] for w in profile["warnings"])
    assert (y["type"], y["missing"]) == ("number", 0)
    job = daemon.train({"dataset": "mixed", "target": "y", "layers": [8], "epochs": 2})
    told = " ".join(w["detail"] for w in job["warnings"])
    assert "note" in told and "'n'" in told
    reply = daemon.post("/v1/jobs?dry_run=true", json={"dataset": "mixed", "target": "y", "layers": [8], "columns":
                                                       {"n": {"type": "number", "missing": "error"}}})
    assert reply.status_code == 422 and "n" in reply.json()["errors"][0]["pointer"], reply.text


def test_images_with_a_test_split_of_their_own(make_daemon):
    d = make_daemon()
    train = idx(8, 40, 3, 3, data=bytes((i // 9 % 2) * 200 for i in range(360)))
    labels = idx(8, 40, data=bytes(i % 2 for i in range(40)))
    parts = {"name": (None, "img"), "inputs": ("i", gzip.compress(train)), "targets": ("t", labels),
             "test_inputs": ("ti", idx(8, 10, 3, 3, data=bytes((i // 9 % 2) * 200 for i in range(90)))),
             "test_targets": ("tt", idx(8, 10, data=bytes(i % 2 for i in range(10))))}
    reply = d.post("/v1/datasets", files=parts)
    assert reply.status_code == 201 and reply.headers["Location"] == "/v1/datasets/img"
    profile = reply.json()
    assert (profile["rows"], profile["test_rows"]) == (50, 10)
    assert d.post("/v1/datasets", files=parts).status_code == 200
    job = d.train({"dataset": "img", "layers": [8], "epochs": 20, "batch_size": 8, "lr": 0.05})
    assert job["metrics"]["last"]["test_accuracy"] == 1
    assert d.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert d.delete("/v1/datasets/img").status_code == 204
    assert files(d) == []


def test_data_by_form(daemon):
    reply = daemon.post("/v1/datasets", files={"name": (None, "form"), "data": ("x.csv", SMALL)})
    assert reply.status_code == 201 and reply.json()["sha256"] == hashlib.sha256(SMALL.encode()).hexdigest()


def test_curl(daemon, tmp_path):
    """The ways in which people send a file with curl; the one that spoils it is told so."""
    file = tmp_path / "small.csv"
    file.write_text(SMALL)
    assert b'"rows":30' in daemon.curl("-T", str(file), "/v1/datasets/curl1")
    assert b'"rows":30' in daemon.curl("-X", "PUT", "--data-binary", f"@{file}", "/v1/datasets/curl2")
    assert b'"rows":30' in daemon.curl("-F", "name=curl3", "-F", f"data=@{file}", "/v1/datasets")
    spoiled = daemon.curl("-X", "PUT", "-d", f"@{file}", "/v1/datasets/curl4")
    assert b'"newlines_gone"' in spoiled and b"--data-binary" in spoiled and b"-T" in spoiled
    piped = daemon.curl("-X", "PUT", "-H", "Transfer-Encoding: chunked", "-T", str(file), "/v1/datasets/curl5")
    assert b'"rows":30' in piped


def test_upload_and_train_in_one_call(make_daemon):
    d = make_daemon()
    form = {"spec": (None, '{"dataset": "own", "target": "species", "layers": [4], "epochs": 2}'),
            "data": ("f.csv", flowers())}
    dry = d.post("/v1/jobs?dry_run=true", files=form)
    assert dry.status_code == 200 and dry.json()["spec"]["dataset"]["name"] == "own"
    assert inventory(d) == ([], [], [])  # a dry run stores nothing at all
    key = {"Idempotency-Key": "one"}
    first = d.post("/v1/jobs?wait=60", files=form, headers=key)
    assert first.status_code == 201 and first.json()["status"] == "succeeded"
    again = d.post("/v1/jobs", files=form, headers=key)
    assert again.json()["id"] == first.json()["id"] and again.headers["Idempotency-Replayed"] == "true"
    assert on_disk(d) == {"raw": 1, "tables": 1}
    # A job that cannot be must not replace the dataset of the same name either.
    bad = {"spec": (None, '{"dataset": "own", "target": "nothing", "layers": [4]}'), "data": ("f.csv", flowers(90))}
    before = inventory(d)
    assert d.post("/v1/jobs", files=bad).status_code == 422
    assert inventory(d) == before


def test_killed_in_the_middle_of_an_upload(make_daemon):
    d = make_daemon()
    d.upload("whole", SMALL)
    with dial(d) as s:
        s.sendall(b"PUT /v1/datasets/half HTTP/1.1\r\n" + HOST + b"Content-Length: 10000000\r\n\r\na,b\n" +
                  250_000 * b"1,2\n")
        deadline = time.monotonic() + 10
        while not any(f.startswith("tmp/") for f in files(d)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert any(f.startswith("tmp/") for f in files(d))
        d.kill()
    d.start()
    assert [x["name"] for x in d.get("/v1/datasets").json()["data"]] == ["whole"]
    assert on_disk(d) == {"raw": 1, "tables": 1}


def test_a_large_file_in_little_memory(tmp_path):
    """Memory does not grow with the file. Of speed it only reports a figure."""
    done = subprocess.run([ROOT / "scripts" / "big_csv.sh", "60"], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "BACKPROPD": EXECUTABLE, "TMPDIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    figures = re.search(r"(\S+) MB in (\S+) s: (\S+) MB/s, grown by (\d+) KiB", done.stdout)
    assert 59 <= float(figures[1]) <= 60 and int(figures[4]) < 64 * 1024, done.stdout
    assert not list(tmp_path.iterdir())


def test_strange_files_in_the_data_directory_are_left_or_swept(make_daemon):
    """What a crash between placing and committing leaves behind is removed at the next start."""
    d = make_daemon()
    d.upload("whole", SMALL)
    assert d.stop() == 0
    (d.data_dir / "raw" / (64 * "a")).write_text("orphan")
    (d.data_dir / "tables" / (64 * "b" + ".table")).write_text("orphan")
    (d.data_dir / "tmp" / "left.part").write_text("orphan")
    d.start()
    assert on_disk(d) == {"raw": 1, "tables": 1}
    assert d.train({"dataset": "whole", "target": "r", "layers": [2], "epochs": 1})["status"] == "succeeded"
