"""Who may speak to the daemon: the token, names it answers to, pages of other origins, and where it listens."""

import hashlib
import os
import re
import secrets
import socket
import subprocess
import time

import pytest

from conftest import EXECUTABLE, Daemon
from data import flowers
from refusals import files, raw, refused

TOKEN = "bpd_" + secrets.token_urlsafe(24)


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("token") / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, token_file):
    d = Daemon(tmp_path_factory.mktemp("daemon") / "data", "--token-file", str(token_file), "--log-level", "debug",
               "--allow-host", "train.example").start()
    d.session.headers["Authorization"] = f"Bearer {TOKEN}"
    yield d
    assert d.running and d.stop() == 0, d.log()


def bare(daemon, method, path, **headers):
    lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in {"Host": "127.0.0.1", **headers}.items())
    return raw(daemon, f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode(), linger=0.05)


def test_with_the_token_all_is_as_ever(guarded):
    guarded.upload("flowers", flowers())
    assert guarded.train({"dataset": "flowers", "target": "species", "layers": [4], "epochs": 1})


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Bearer wrong-token-of-some-length",
                                    f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x",
                                    f"Bearer {TOKEN.swapcase()}",
                                    "Bearer " + 4000 * "x", f"Bearer {TOKEN} {TOKEN}"],
                         ids=["none", "empty", "only the scheme", "scheme and a blank", "another", "other scheme",
                              "no scheme", "cut short", "longer", "other case", "4 kB", "twice"])
@pytest.mark.parametrize("method,path", [("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("DELETE", "/v1/datasets/flowers"),
                                         ("GET", "/no/such/path"), ("GET", "/v1/capabilities")])
def test_without_the_token_nothing(guarded, header, method, path):
    """The same 401 for all, whether the path exists or not."""
    answer = bare(guarded, method, path, **({} if header is None else {"Authorization": header}))
    assert answer.status == 401, answer.data
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert b'"unauthorized"' in answer.body and TOKEN.encode() not in answer.data
    assert answer.headers["x-request-id"]


def test_scheme_in_any_case(guarded):
    for scheme in ("bearer", "BEARER", "Bearer"):
        assert bare(guarded, "GET", "/v1/jobs", Authorization=f"{scheme} {TOKEN}").status == 200


def test_an_upload_without_the_token_is_refused_on_its_headers(guarded):
    before = files(guarded)
    answer = raw(guarded, b"PUT /v1/datasets/x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n"
                 b"Expect: 100-continue\r\n\r\n")
    assert answer.status == 401 and answer.closed and b"100 Continue" not in answer.data
    assert files(guarded) == before


def test_probes_need_no_token(guarded):
    assert bare(guarded, "GET", "/healthz").status == bare(guarded, "GET", "/readyz").status == 200


def test_the_token_is_nowhere(guarded):
    """Not in the log, not in any file of the data directory, not on the command line: at most its hash."""
    bare(guarded, "GET", "/v1/jobs", Authorization=f"Bearer {TOKEN}")
    assert TOKEN not in guarded.log(100_000)
    for path in guarded.data_dir.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    with open(f"/proc/{guarded.process.pid}/cmdline", "rb") as f:
        assert TOKEN.encode() not in f.read()


def test_files_are_for_the_owner_only(guarded):
    assert guarded.data_dir.stat().st_mode & 0o077 == 0
    for path in guarded.data_dir.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:80", "train.example",
                                  "Train.Example:443"])
def test_hosts_it_answers_to(guarded, host):
    assert bare(guarded, "GET", "/v1/jobs", Host=host, Authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "xtrain.example",
                                  "train.example.evil", "0.0.0.0"])
def test_hosts_it_does_not(guarded, host):
    """A name that was rebound to loopback is refused before the token is looked at: the page learns nothing."""
    for path in ("/v1/jobs", "/healthz"):
        answer = bare(guarded, "GET", path, Host=host, Authorization=f"Bearer {TOKEN}")
        assert answer.status == 403 and b"host_not_allowed" in answer.body and answer.closed


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1",
                                    "file://", "chrome-extension://abc", "http://127.0.0.1.evil.example"])
def test_pages_of_other_origins(guarded, origin):
    for method in ("GET", "POST", "OPTIONS"):
        answer = bare(guarded, method, "/v1/jobs", Host="127.0.0.1:8080", Origin=origin,
                      Authorization=f"Bearer {TOKEN}")
        assert answer.status == 403 and b"origin_not_allowed" in answer.body
        assert not [h for h in answer.headers if h.startswith("access-control")]


def test_our_own_page(guarded):
    answer = bare(guarded, "GET", "/v1/jobs", Host="127.0.0.1:8080", Origin="http://127.0.0.1:8080",
                  Authorization=f"Bearer {TOKEN}")
    assert answer.status == 200


# --- where it listens, and with which token ---

def start(tmp_path, *options, timeout=30):
    return subprocess.run([EXECUTABLE, "--data-dir", str(tmp_path / "data"), *options], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=timeout)


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0", "128.0.0.1:0"])
def test_beyond_loopback_only_with_a_token(tmp_path, listen):
    run = start(tmp_path, "--listen", listen)
    assert run.returncode == 78 and "--token-file" in run.stderr
    assert len(run.stderr.splitlines()) == 1 and not (tmp_path / "data").exists()


def test_beyond_loopback_with_a_token(tmp_path, token_file):
    log = open(tmp_path / "log", "w+b")
    process = subprocess.Popen([EXECUTABLE, "--data-dir", str(tmp_path / "data"), "--listen", "0.0.0.0:0",
                                "--token-file", str(token_file)], stdin=subprocess.DEVNULL, stderr=log)
    try:
        deadline = time.monotonic() + 30
        port = None
        while not port and time.monotonic() < deadline and process.poll() is None:
            port = re.search(rb"http://0\.0\.0\.0:(\d+)", (tmp_path / "log").read_bytes())
            time.sleep(0.01)
        assert port, (tmp_path / "log").read_text()
        with socket.create_connection(("127.0.0.1", int(port[1])), timeout=10) as s:
            s.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            assert b" 401 " in s.recv(4096)
    finally:
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize("content,mode", [("short", 0o600), ("", 0o600), (TOKEN, 0o644), (TOKEN, 0o660),
                                          ("x" * 5000, 0o600), ("nul\0" + TOKEN, 0o600)],
                         ids=["short", "empty", "others can read", "group can write", "too long", "nul"])
def test_token_files_that_will_not_do(tmp_path, content, mode):
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    run = start(tmp_path, "--listen", "127.0.0.1:0", "--token-file", str(path))
    assert run.returncode == 78 and "--token-file" in run.stderr and "Traceback" not in run.stderr
    assert not content or content not in run.stderr or content == "short"


def test_token_file_that_is_not_there(tmp_path):
    run = start(tmp_path, "--listen", "127.0.0.1:0", "--token-file", str(tmp_path / "nothing"))
    assert run.returncode == 78 and "No such file" in run.stderr


def test_problem_pages_and_the_guide_need_the_token_too(guarded):
    assert bare(guarded, "GET", "/").status == bare(guarded, "GET", "/problems/in_use").status == 401
    refused(guarded, guarded.get("/nothing"), 404, "no_such_path")


def test_hash_of_the_token_is_what_is_compared(guarded):
    """Sending the hash instead of the token gets nobody in."""
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    assert bare(guarded, "GET", "/v1/jobs", Authorization=f"Bearer {digest}").status == 401
    assert os.path.exists(f"/proc/{guarded.process.pid}")
