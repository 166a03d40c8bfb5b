"""A real daemon for each test module, and a client that speaks to it as a person with curl would.

The executable is build/backpropd, or what the environment variable BACKPROPD names. Every daemon gets a data directory
of its own and a free port of 127.0.0.1, is stopped with SIGTERM, and must then end with exit code 0. When a test fails,
the log of its daemon is shown.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest
import requests

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXECUTABLE = os.environ.get("BACKPROPD", str(ROOT / "build" / "backpropd"))
FINAL = ("succeeded", "failed", "cancelled")
# Seconds for anything that a test waits for; sanitizer builds are slow, an emulated CPU is slower still.
PATIENCE = float(os.environ.get("BACKPROPD_TEST_PATIENCE", 600))
# Seconds of silence after which a connection is not used again: the daemon closes it after 15, and a machine that was
# stopped for a while would see a request go into a connection that is being closed.
SILENCE = 10


class Daemon:
    """A running backpropd. `url` is where it listens; requests go through get, post, put, delete and patch."""

    def __init__(self, data_dir, *options, env=None):
        self.data_dir = pathlib.Path(data_dir)
        self.options = options
        self.env = {**os.environ, **(env or {})}
        self.log_path = self.data_dir.with_name(self.data_dir.name + ".log")
        self.process = None
        self.session = requests.Session()
        self.asked = time.monotonic()
        self.session.trust_env = False  # no proxy between a test and loopback

    # --- its life ---

    def start(self):
        with open(self.log_path, "ab") as log:
            start = log.tell()
            self.process = subprocess.Popen(
                [EXECUTABLE, "--listen", "127.0.0.1:0", "--data-dir", str(self.data_dir), *self.options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            ready = re.search(rb"http://127\.0\.0\.1:(\d+)", self.log_path.read_bytes()[start:])
            if ready:
                self.url = f"http://127.0.0.1:{int(ready[1])}"
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"the daemon is not ready (exit code {self.process.poll()}):\n{self.log()}")

    def stop(self):
        """SIGTERM, and the exit code: 0 where all was put away in order."""
        self.session.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the daemon does not end on SIGTERM:\n{self.log()}") from None

    def kill(self):
        """kill -9: no chance to put anything away."""
        self.session.close()
        self.process.kill()
        self.process.wait(PATIENCE)

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def log(self, lines=200):
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    # --- requests ---

    def request(self, method, path, **options):
        options.setdefault("timeout", PATIENCE)
        if time.monotonic() - self.asked > SILENCE:
            self.session.close()
        try:
            return self.session.request(method, self.url + path, **options)
        finally:
            self.asked = time.monotonic()

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, **options):
        return self.request("POST", path, **options)

    def put(self, path, **options):
        return self.request("PUT", path, **options)

    def patch(self, path, **options):
        return self.request("PATCH", path, **options)

    def delete(self, path, **options):
        return self.request("DELETE", path, **options)

    def curl(self, *arguments, check=True):
        """The standard output of curl; an argument that begins with / is a path of this daemon."""
        command = ["curl", "-sS", "--max-time", str(PATIENCE)]
        command += [self.url + a if a.startswith("/v1") or a == "/" else a for a in arguments]
        return subprocess.run(command, check=check, stdout=subprocess.PIPE, env=self.env).stdout

    # --- what tests do all the time ---

    def upload(self, name, body):
        reply = self.put(f"/v1/datasets/{name}", data=body.encode() if isinstance(body, str) else body)
        assert reply.status_code in (200, 201), reply.text
        return reply.json()

    def submit(self, spec):
        reply = self.post("/v1/jobs", json=spec)
        assert reply.status_code == 201, reply.text
        return reply.json()

    def job(self, job_id):
        reply = self.get(f"/v1/jobs/{job_id}")
        assert reply.status_code == 200, reply.text
        return reply.json()

    def wait(self, job_id, until=lambda job: job["status"] in FINAL, patience=PATIENCE):
        """The job as soon as it is as wanted; by default, when it has ended."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            job = self.job(job_id)
            if until(job):
                return job
            assert job["status"] not in FINAL, f"ended before: {json.dumps(job['error'])} {job['status']}"
            time.sleep(0.02)
        raise AssertionError(f"nothing came of it: {json.dumps(job)}")

    def train(self, spec):
        """Submits a job and returns it when it has succeeded."""
        job = self.wait(self.submit(spec)["id"])
        assert job["status"] == "succeeded", job
        return job


class Problem:
    """What a refusal must be: a problem reply with this status and code."""

    def __init__(self, status, code, word=""):
        self.status, self.code, self.word = status, code, word

    def __eq__(self, reply):
        body = reply.json()
        assert reply.headers["Content-Type"].startswith("application/problem+json"), reply.headers
        assert (reply.status_code, body["code"]) == (self.status, self.code), reply.text
        assert body["status"] == self.status and self.word in reply.text, reply.text
        return True


@pytest.fixture(scope="session")
def problem():
    return Problem


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """One daemon for the tests of a module."""
    d = Daemon(tmp_path_factory.mktemp("daemon") / "data").start()
    yield d
    assert d.running, f"the daemon died:\n{d.log()}"
    assert d.stop() == 0, d.log()


@pytest.fixture
def make_daemon(tmp_path):
    """Daemons for a test that starts and stops them itself: make_daemon("--threads", "1")."""
    made = []

    def make(*options, data_dir=None, env=None):
        d = Daemon(data_dir or tmp_path / f"data{len(made)}", *options, env=env).start()
        made.append(d)
        return d

    make.made = made
    yield make
    for d in made:
        if d.running:
            assert d.stop() == 0, d.log()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        daemons = [item.funcargs.get("daemon"), *getattr(item.funcargs.get("make_daemon"), "made", [])]
        for d in daemons:
            if d is not None:
                report.sections.append(("log of the daemon", d.log()))
