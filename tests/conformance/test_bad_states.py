"""Calls that come at the wrong time, twice, or for what is not there: refused with what would be allowed, and nothing
changes; and starts on a directory that another daemon has, or that is not ours."""

import json
import sqlite3
import subprocess
import threading
import time

import pytest
import requests

from conftest import EXECUTABLE
from data import flowers
from refusals import inventory, refused

SHORT = {"dataset": "flowers", "target": "species", "layers": [4], "epochs": 2}
LONG = {**SHORT, "epochs": 10_000_000}


@pytest.fixture(scope="module")
def there(daemon):
    daemon.upload("flowers", flowers())
    return daemon


@pytest.fixture(scope="module")
def ended(there):
    """A job of each end."""
    jobs = {"succeeded": there.train(SHORT)["id"]}
    jobs["cancelled"] = there.submit(LONG)["id"]
    there.post(f"/v1/jobs/{jobs['cancelled']}/cancel")
    jobs["failed"] = there.submit({**SHORT, "optimizer": {"type": "sgd", "lr": 10000}, "epochs": 500, "scale": "none",
                                   "target": "petal_width"})["id"]
    for job in jobs.values():
        there.wait(job)
    assert {name: there.job(job)["status"] for name, job in jobs.items()} == {name: name for name in jobs}
    return jobs


@pytest.fixture
def running(there):
    job = there.submit(LONG)["id"]
    there.wait(job, lambda j: j["status"] == "running" and j["progress"]["step"] > 0)
    yield job
    there.post(f"/v1/jobs/{job}/cancel")
    there.wait(job)
    assert there.delete(f"/v1/jobs/{job}").status_code == 204


@pytest.mark.parametrize("state,verb", [(state, verb) for state in ("succeeded", "cancelled", "failed")
                                        for verb in ("pause", "resume", "cancel", "stop") if (state, verb)
                                        not in (("cancelled", "cancel"), ("succeeded", "stop"))])
def test_verbs_of_an_ended_job(there, ended, state, verb):
    before = inventory(there)
    problem = refused(there, there.post(f"/v1/jobs/{ended[state]}/{verb}"), 409, "illegal_transition")
    assert problem["job_status"] == state and problem["allowed"] == ["delete"]
    assert inventory(there) == before


def test_the_same_end_twice(there, ended):
    assert there.post(f"/v1/jobs/{ended['succeeded']}/stop").json()["status"] == "succeeded"
    assert there.post(f"/v1/jobs/{ended['cancelled']}/cancel").json()["status"] == "cancelled"


def test_resume_of_a_running_job(there, running):
    reply = there.post(f"/v1/jobs/{running}/resume")
    if reply.status_code != 200:  # asking for what is so already is no mistake
        problem = refused(there, reply, 409, "illegal_transition")
        assert "resume" not in problem["allowed"]
    assert there.job(running)["status"] == "running"


def test_delete_of_what_is_in_use(there, running):
    refused(there, there.delete(f"/v1/jobs/{running}"), 409, "job_active")
    refused(there, there.delete("/v1/datasets/flowers"), 409, "in_use", word=running)
    assert there.job(running)["status"] == "running" and there.get("/v1/datasets/flowers").status_code == 200


@pytest.mark.parametrize("path", ["weights.safetensors", "weights.npz", "weights?format=json"])
def test_weights_before_the_first_checkpoint(make_daemon, path):
    d = make_daemon("--threads", "1", "--workers", "1")
    d.upload("flowers", flowers())
    first, second = d.submit(LONG)["id"], d.submit(SHORT)["id"]
    assert d.job(second)["status"] == "queued"
    refused(d, d.get(f"/v1/jobs/{second}/{path}"), 409, "no_checkpoint")
    refused(d, d.post(f"/v1/jobs/{second}/predict", json=[[1, 2, 3, 4]]), 409, "no_checkpoint")
    d.post(f"/v1/jobs/{first}/cancel")


def test_weights_of_a_job_that_never_began(make_daemon):
    d = make_daemon("--threads", "1", "--workers", "1")
    d.upload("flowers", flowers())
    first, second = d.submit(LONG)["id"], d.submit(SHORT)["id"]
    d.post(f"/v1/jobs/{second}/cancel")
    problem = refused(d, d.get(f"/v1/jobs/{second}/weights"), 409, "no_checkpoint")
    assert problem["detail"] == "this job is cancelled and has no checkpoint"  # and nothing to wait for
    d.post(f"/v1/jobs/{first}/cancel")


def test_a_long_evaluation_does_not_keep_the_daemon_from_stopping(make_daemon):
    """It would take half a minute and more; what is in flight has five seconds."""
    d = make_daemon()
    d.upload("flowers", flowers())
    d.upload("many", "x,y\n" + 500_000 * "0.5,1.5\n1.5,0.5\n")
    d.upload("few", "x,y\n" + 20 * "0.5,1.5\n1.5,0.5\n")
    job = d.train({"dataset": "few", "target": "y", "layers": [3000, 3000], "epochs": 1})["id"]
    replies = []
    asking = threading.Thread(target=lambda: replies.append(
        requests.post(f"{d.url}/v1/jobs/{job}/evaluate", json={"dataset": "many"}, timeout=600)))
    asking.start()
    time.sleep(1)
    assert d.stop() == 0
    asking.join()
    refused_later = replies[0].json()
    assert (replies[0].status_code, refused_later["code"]) == (503, "shutting_down"), refused_later


def test_weights_of_a_checkpoint_that_is_not_there(there, ended):
    for checkpoint in ("ckpt_" + 26 * "0", "bset", "../x"):
        reply = there.get(f"/v1/jobs/{ended['succeeded']}/weights.safetensors", params={"checkpoint": checkpoint})
        assert reply.status_code in (400, 404, 422)
        refused(there, reply, reply.status_code, reply.json()["code"])


def test_predictions_of_a_failed_job_are_never_numbers_gone_bad(there, ended):
    job = there.job(ended["failed"])
    assert job["error"]["code"] == "nonfinite_loss"
    reply = there.post(f"/v1/jobs/{ended['failed']}/predict", json=[[5, 3, 1, "setosa"]])
    assert reply.status_code in (200, 409, 422, 500)
    assert "nan" not in reply.text.lower().replace("nonfinite", "") and "inf" not in reply.text.lower().replace(
        "nonfinite", "").replace("information", "")


ROWS = {
    "too narrow": ([[1, 2]], 422, "invalid_rows"),
    "too wide": ([[1, 2, 3, 4, 5]], 422, "invalid_rows"),
    "words": ([["a", "b", "c", "d"]], 422, "invalid_rows"),
    "not-a-number": ('[[NaN, 1, 2, 3]]', 400, "invalid_json"),
    "no rows": ([], 422, None),
    "10001 rows": ([[1, 2, 3, 4]] * 10_001, 413, "too_many_rows"),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_to_predict(there, ended, name):
    rows, status, code = ROWS[name]
    body = rows if isinstance(rows, str) else json.dumps(rows)
    reply = there.post(f"/v1/jobs/{ended['succeeded']}/predict", data=body)
    refused(there, reply, status, code or reply.json()["code"])


def test_key_in_flight(there):
    """Ten equal submissions at once with one key: one job, and ten equal answers."""
    before = len(there.get("/v1/jobs?limit=1000").json()["data"])
    replies = []

    def submit():
        replies.append(there.session.post(there.url + "/v1/jobs", json=SHORT, headers={"Idempotency-Key": "flight"}))
    threads = [threading.Thread(target=submit) for _ in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {r.status_code for r in replies} == {201}
    assert len({r.json()["id"] for r in replies}) == 1
    assert sum("Idempotency-Replayed" not in r.headers for r in replies) == 1
    assert len(there.get("/v1/jobs?limit=1000").json()["data"]) == before + 1
    there.wait(replies[0].json()["id"])
    refused(there, there.post("/v1/jobs", json={**SHORT, "seed": 1}, headers={"Idempotency-Key": "flight"}), 422,
            "idempotency_key_reused")


def test_more_jobs_than_the_queue_takes(make_daemon):
    d = make_daemon("--threads", "1", "--workers", "1")
    d.upload("flowers", flowers())
    d.submit(LONG)
    reply, accepted = None, 1
    for _ in range(20_000):
        reply = d.post("/v1/jobs", json=SHORT)
        if reply.status_code != 201:
            break
        accepted += 1
    problem = refused(d, reply, 429, "queue_full")
    assert int(reply.headers["Retry-After"]) > 0 and problem["limit"] in (accepted - 1, accepted)
    queued, page = 0, d.get("/v1/jobs?limit=1000").json()
    queued += len(page["data"])
    while page["has_more"]:
        page = d.get(f"/v1/jobs?limit=1000&after={page['next']}").json()
        queued += len(page["data"])
    assert queued == accepted


def test_waits_are_bounded(there, ended, running):
    assert there.get(f"/v1/jobs/{ended['succeeded']}?wait=3600").status_code == 200  # has ended: nothing to wait for
    refused(there, there.get(f"/v1/jobs/{running}?wait=-1"), 400, "bad_query")
    refused(there, there.get(f"/v1/jobs/{running}?wait=99999"), 400, "bad_query")


def test_events_after_what_never_was(there, ended):
    job = ended["succeeded"]
    for after in ("-1", "x", "999999999999999999999"):
        reply = there.get(f"/v1/jobs/{job}/events?after={after}")
        refused(there, reply, 400, reply.json()["code"])
    assert there.get(f"/v1/jobs/{job}/events?after=999999").json()["data"] == []


def test_a_job_that_is_not_there(there):
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("POST", "/stop"), ("POST", "/pause"),
                         ("POST", "/resume"), ("GET", "/spec"), ("GET", "/metrics"), ("GET", "/events"),
                         ("GET", "/checkpoints"), ("GET", "/weights.npz"), ("POST", "/evaluate")):
        refused(there, there.request(method, f"/v1/jobs/job_nothing{path}"), 404, "not_found")


def test_a_dataset_deleted_under_a_spec(there):
    there.upload("gone", flowers())
    assert there.delete("/v1/datasets/gone").status_code == 204
    refused(there, there.delete("/v1/datasets/gone"), 404, "not_found")
    refused(there, there.post("/v1/jobs", json={**SHORT, "dataset": "gone"}), 422, "invalid_spec", ["/dataset"])


def test_stopping_refuses_what_is_new(make_daemon):
    """While the daemon stops, nothing new is taken; what is under way is answered."""
    d = make_daemon()
    d.upload("flowers", flowers())
    job = d.submit(LONG)["id"]
    d.wait(job, lambda j: j["status"] == "running")
    codes = []

    def ask():
        try:
            for _ in range(2000):
                codes.append(d.session.post(d.url + "/v1/jobs", json={**SHORT, "epochs": 0}, timeout=10).status_code)
        except OSError:
            pass
    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.1)
    d.process.terminate()
    assert d.process.wait(30) == 0, d.log()
    asking.join()
    assert set(codes) <= {422, 503} and 422 in codes


# --- starts that must not happen: exit code, one line that says what to do, and the files as they were ---

def refused_start(data_dir, code, word):
    def there():  # the lock and the shared memory of the log are no data
        return {p: p.read_bytes() for p in data_dir.rglob("*") if p.is_file() and not p.name.endswith(("lock", "-shm"))}
    before = there()
    run = subprocess.run([EXECUTABLE, "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, timeout=60)
    assert run.returncode == code, run.stderr
    assert word in run.stderr and len(run.stderr.strip().splitlines()) == 1, run.stderr
    assert there() == before


@pytest.fixture
def stopped(make_daemon):
    """The directory of a daemon that has been stopped."""
    d = make_daemon()
    d.upload("flowers", flowers())
    assert d.stop() == 0
    return d.data_dir


def database(data_dir):
    return next(p for p in data_dir.iterdir() if p.suffix in (".db", ".sqlite", ".sqlite3"))


def test_second_daemon(make_daemon):
    d = make_daemon()
    run = subprocess.run([EXECUTABLE, "--listen", "127.0.0.1:0", "--data-dir", str(d.data_dir)], capture_output=True,
                         text=True, timeout=60)
    assert run.returncode == 75 and str(d.process.pid) in run.stderr and "--data-dir" in run.stderr
    assert d.get("/healthz").status_code == 200


def test_database_of_a_newer_version(stopped):
    with sqlite3.connect(database(stopped)) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    refused_start(stopped, 78, "999")


def test_database_of_another_program(stopped):
    with sqlite3.connect(database(stopped)) as db:
        db.execute("PRAGMA application_id = 12345")
    db.close()
    refused_start(stopped, 78, "")


@pytest.mark.parametrize("damage", ["letters", "cut", "first page"])
def test_damaged_database(stopped, damage):
    path = database(stopped)
    data = bytearray(path.read_bytes())
    if damage == "letters":
        data[:] = 100 * b"this is no database "
    elif damage == "cut":
        del data[len(data) // 2:]
    else:
        data[100:600] = 500 * b"\xff"
    path.write_bytes(data)
    refused_start(stopped, 65, "")


def test_data_directory_that_others_can_write(stopped):
    stopped.chmod(0o777)
    refused_start(stopped, 78, "chmod 700")


def test_data_directory_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    run = subprocess.run([EXECUTABLE, "--data-dir", str(tmp_path / "file")], capture_output=True, text=True)
    assert run.returncode in (73, 78) and "--data-dir" in run.stderr
