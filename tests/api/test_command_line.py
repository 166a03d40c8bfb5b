"""The command line: options, the environment, the configuration file and which of them wins; exit codes; and that every
mistake gets one line that says what to do."""

import json
import os
import re
import signal
import socket
import subprocess
import time

import pytest

from conftest import EXECUTABLE

CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("BACKPROPD_")}


def run(*options, env=None, timeout=30):
    return subprocess.run([EXECUTABLE, *map(str, options)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env={**CLEAN, **(env or {})}, timeout=timeout)


def printed(*options, env=None):
    done = run("--print-config", *options, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_help():
    done = run("--help")
    assert done.returncode == 0 and done.stderr == ""
    for option in printed():
        assert f"--{option.replace('_', '-')} " in done.stdout
    for word in ("BACKPROPD_", "--version", "--print-config", "curl http://127.0.0.1:8080/", "default 127.0.0.1:8080"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 130
    assert run("-h").stdout == done.stdout


def test_version(daemon):
    done = run("--version")
    assert done.returncode == 0 and re.fullmatch(r"backpropd \d+\.\d+\.\d+\S*\n", done.stdout)
    assert daemon.get("/version").json()["version"] == done.stdout.split()[1]
    assert run("-V").stdout == done.stdout


def test_defaults():
    config = printed(env={"HOME": "/home/somebody", "XDG_DATA_HOME": ""})
    assert config["listen"] == {"value": "127.0.0.1:8080", "from": "default"}
    assert config["data_dir"]["value"] == "/home/somebody/.local/share/backpropd"
    assert 1 <= int(config["threads"]["value"]) <= os.cpu_count()
    assert all(v["from"] == "default" for v in config.values())
    assert printed(env={"XDG_DATA_HOME": "/data"})["data_dir"]["value"] == "/data/backpropd"


def test_which_source_wins(tmp_path):
    """Flag before environment before file before default, each for itself."""
    file = tmp_path / "backpropd.json"
    file.write_text(json.dumps({"listen": "127.0.0.1:1001", "threads": 1, "workers": 5, "log_level": "warn",
                                "allow_host": ["a.example", "b.example"], "data_dir": str(tmp_path / "x")}))
    env = {"BACKPROPD_LISTEN": "127.0.0.1:1002", "BACKPROPD_THREADS": "3", "BACKPROPD_CONFIG": str(file)}
    config = printed("--listen", "127.0.0.1:1003", "--memory=512M", env=env)
    assert config["listen"] == {"value": "127.0.0.1:1003", "from": "flag"}
    assert config["threads"] == {"value": "3", "from": "environment"}
    assert config["workers"] == {"value": "5", "from": "file"}
    assert config["allow_host"] == {"value": "a.example,b.example", "from": "file"}
    assert config["memory"] == {"value": "512M", "from": "flag"}
    assert config["max_upload"]["from"] == "default"
    assert config["config"]["from"] == "environment"
    assert printed("--config", file)["listen"]["value"] == "127.0.0.1:1001"
    assert printed("--listen", "127.0.0.1:1", "--listen=127.0.0.1:2")["listen"]["value"] == "127.0.0.1:2"
    assert printed("--allow-host", "a", "--allow-host", "b")["allow_host"]["value"] == "a,b"


def test_printing_starts_nothing(tmp_path):
    printed("--data-dir", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_configuration_takes_effect(make_daemon, tmp_path):
    file = tmp_path / "c.json"
    file.write_text('{"threads": 1, "workers": 1, "max_upload": "1K", "log_format": "text"}')
    d = make_daemon("--config", str(file))
    assert "1 threads, 1 workers" in d.log()
    assert d.put("/v1/datasets/x", data=2000 * b"1").json()["limit"] == 1024


def test_json_log(tmp_path):
    process = subprocess.Popen([EXECUTABLE, "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "d"),
                                "--log-format", "json", "--log-level", "error"], stdin=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, env=CLEAN)
    ready = json.loads(process.stderr.readline())
    assert ready["listen"].startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert all(json.loads(line) for line in process.stderr.read().splitlines())


# what is wrong on the command line is 64, in a file or in the environment 78
WRONG = {
    "unknown option": (["--thread", "2"], {}, None, 64, "--threads"),
    "unknown option with a value": (["--liste=x"], {}, None, 64, "--listen"),
    "no option": (["start"], {}, None, 64, "--help"),
    "single dash": (["-p", "80"], {}, None, 64, "--help"),
    "value missing": (["--listen"], {}, None, 64, "HOST:PORT"),
    "value too many": (["--help=yes"], {}, None, 64, "takes no value"),
    "port missing": (["--listen", "127.0.0.1"], {}, None, 64, "HOST:PORT"),
    "port too large": (["--listen", "127.0.0.1:70000"], {}, None, 64, "HOST:PORT"),
    "port below zero": (["--listen", "127.0.0.1:-1"], {}, None, 64, "HOST:PORT"),
    "address without brackets": (["--listen", "::1:8080"], {}, None, 64, "[::1]:8080"),
    "no threads": (["--threads", "0"], {}, None, 64, "1 to 256"),
    "threads no number": (["--threads", "two"], {}, None, 64, "1 to 256"),
    "threads with a rest": (["--threads", "2x"], {}, None, 64, "1 to 256"),
    "too many workers": (["--workers", "65"], {}, None, 64, "1 to 64"),
    "memory too small": (["--memory", "1000"], {}, None, 64, "at least 1M"),
    "memory below zero": (["--memory", "-1M"], {}, None, 64, "1M"),
    "memory beyond all": (["--memory", "99999999999T"], {}, None, 64, ""),
    "unit unknown": (["--max-upload", "10X"], {}, None, 64, "K, M, G or T"),
    "log level": (["--log-level", "loud"], {}, None, 64, "debug, info, warn or error"),
    "log format": (["--log-format", "xml"], {}, None, 64, "text or json"),
    "directory empty": (["--data-dir", ""], {}, None, 64, "--data-dir"),
    "directory with a tilde": (["--data-dir", "~/data"], {}, None, 78, "shell"),
    "environment": ([], {"BACKPROPD_THREADS": "many"}, None, 78, "BACKPROPD_THREADS"),
    "file missing": (["--config", "/nothing/here.json"], {}, None, 78, "No such file"),
    "file no json": ([], {}, "{threads: 2}", 78, "line 1"),
    "file no object": ([], {}, "[]", 78, "JSON object"),
    "file with an unknown member": ([], {}, '{"thread": 2}', 78, "threads"),
    "file with a flag": ([], {}, '{"help": true}', 78, "help"),
    "file with a wrong type": ([], {}, '{"threads": true}', 78, "threads"),
    "file with a wrong value": ([], {}, '{"threads": 0}', 78, "1 to 256"),
    "file with a name twice": ([], {}, '{"threads": 1, "threads": 2}', 78, "duplicate"),
    "kernels that do not exist": ([], {"BACKPROPD_SIMD": "mmx"}, None, 78, "generic"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(tmp_path, name):
    options, env, file, code, word = WRONG[name]
    options = list(options)
    if file is not None:
        (tmp_path / "c.json").write_text(file)
        options += ["--config", str(tmp_path / "c.json")]
    if not any(o.startswith("--data-dir") for o in options):
        options = ["--data-dir", str(tmp_path / "data"), *options]
    if not any(o.startswith("--listen") for o in options):
        options = ["--listen", "127.0.0.1:0", *options]
    done = run(*options, env=env)
    assert done.returncode == code, done.stderr
    assert word in done.stderr and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "backpropd" in done.stderr or re.match(r"\d{4}-", done.stderr)


def test_address_in_use(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        done = run("--listen", f"127.0.0.1:{s.getsockname()[1]}", "--data-dir", tmp_path / "d")
    assert done.returncode == 69 and "--listen" in done.stderr


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    done = run("--listen", "127.0.0.1:0", "--data-dir", tmp_path / "file" / "below")
    assert done.returncode == 73 and "--data-dir" in done.stderr


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_it_in_order(make_daemon, sig):
    d = make_daemon()
    d.process.send_signal(sig)
    assert d.process.wait(30) == 0


def test_started_again_at_once_on_the_same_port(make_daemon):
    """No waiting for the kernel to forget the connections of the one before."""
    d = make_daemon()
    port = d.url.rsplit(":", 1)[1]
    d.get("/v1/jobs")
    assert d.stop() == 0
    process = subprocess.Popen([EXECUTABLE, "--listen", f"127.0.0.1:{port}", "--data-dir", str(d.data_dir)],
                               stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=CLEAN)
    line = process.stderr.readline().decode()
    process.terminate()
    assert process.wait(30) == 0 and "ready on" in line, line


def test_ready_within_a_second_or_so(make_daemon):
    began = time.monotonic()
    make_daemon()
    assert time.monotonic() - began < 10
