#!/usr/bin/env python3
"""How cost grows: measured points against the line that theory says they follow; a table, and a plot each.

    growth.py [--build DIR] [--only NAME,…] [--quick]

Speed over width, depth, batch, rows and threads; memory over parameters; the size of the database over checkpoints and
metrics, through the daemon. Plots go to tests/bench/plots/*.svg, the table with the points to build/bench/growth.json,
from where scripts/bench.sh --readme takes it. scripts/growth.sh runs this with everything in place. The machine should be
idle; about two minutes.

A theory that knows its shape only goes through the last point: the largest size, where fixed costs show least. How far the
first points are from it is what the fixed costs are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import plot
import report

ROOT = Path(__file__).resolve().parent.parent.parent
PLOTS = ROOT / "tests" / "bench" / "plots"
PROCESSORS = len(os.sched_getaffinity(0))
MB = 1e6


@dataclass
class Series:
    """Points (x, y), and the theory as a function whose scale is fitted to the last point."""

    name: str
    x_label: str
    y_label: str
    theory: str
    shape: Callable[[float], float]
    points: list[tuple[float, float]] = field(default_factory=list)

    def line(self, x: float) -> float:
        last_x, last_y = self.points[-1]
        return last_y * self.shape(x) / self.shape(last_x)


class Bench:
    def __init__(self, build: Path, quick: bool) -> None:
        self.build, self.quick = build, quick

    def some(self, values: list[int]) -> list[int]:
        return values[:: len(values) - 1] if self.quick else values

    def run(self, layers: list[list[Any]], *, inputs: int, batch: int, rows: int, threads: int = PROCESSORS) -> dict[str, Any]:
        """What backpropd-bench says of one network with Adam and ten classes."""
        workload = {
            "name": "growth", "rows": rows, "batch": batch, "input": [inputs], "layers": [*layers, ["dense", 10]],
            "loss": "softmax_cross_entropy", "optimizer": "adam",
        }  # fmt: skip
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump([workload], file)
            file.flush()
            command = [str(self.build / "backpropd-bench"), "--workloads", file.name, "--threads", str(threads)]
            command += ["--seconds", "0.05" if self.quick else "0.3", "--repeat", "1" if self.quick else "2"]
            return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def dense(*units: int) -> list[list[Any]]:
    return [["dense", n, "relu"] for n in units]


# --- speed ------------------------------------------------------------------------------------------------------------
def width(bench: Bench) -> Series:
    s = Series("width", "width of two hidden layers", "samples/s", "1 / operations: width x width at last",
               lambda w: 1 / (256 * w + w * w + 10 * w))  # fmt: skip
    for w in bench.some([32, 64, 128, 256, 512, 1024, 2048]):
        s.points.append((w, bench.run(dense(w, w), inputs=256, batch=128, rows=8192)["samples_per_s"]))
    return s


def depth(bench: Bench) -> Series:
    s = Series("depth", "hidden layers of 256", "samples/s", "1 / layers", lambda d: 1 / d)
    for d in bench.some([1, 2, 4, 8, 16, 32]):
        s.points.append((d, bench.run(dense(*[256] * d), inputs=256, batch=128, rows=8192)["samples_per_s"]))
    return s


def batch(bench: Bench) -> Series:
    s = Series("batch", "rows of a batch", "samples/s", "the same for all", lambda b: 1)
    for b in bench.some([1, 4, 16, 64, 256, 1024, 4096]):
        s.points.append((b, bench.run(dense(256, 256), inputs=256, batch=b, rows=16384)["samples_per_s"]))
    return s


def rows(bench: Bench) -> Series:
    s = Series("rows", "rows of the table", "samples/s", "the same for all", lambda n: 1)
    for n in bench.some([1000, 10_000, 100_000, 1_000_000]):
        s.points.append((n, bench.run(dense(64, 64), inputs=32, batch=256, rows=n)["samples_per_s"]))
    return s


def threads(bench: Bench) -> Series:
    s = Series("threads", "threads", "samples/s", "threads, up to the processors", lambda t: min(t, PROCESSORS))
    for t in sorted({*range(1, PROCESSORS + 1), 2 * PROCESSORS}):
        s.points.append((t, bench.run(dense(512, 256), inputs=784, batch=128, rows=8192, threads=t)["samples_per_s"]))
    s.points.sort()
    return s


# --- memory -----------------------------------------------------------------------------------------------------------
def memory(bench: Bench) -> Series:
    """Of backpropd-bench without its table, beside the estimate that a job is held to; that counts a checkpoint too."""
    s = Series("memory", "parameters", "resident MB of the process", "the estimate that a job is held to", lambda p: p)
    estimates = {}
    for w in bench.some([64, 256, 512, 1024, 2048, 3072]):
        of = bench.run(dense(w, w), inputs=784, batch=128, rows=1024)
        s.points.append((of["parameters"], (of["rss_bytes"] - of["table_bytes"]) / MB))
        estimates[of["parameters"]] = of["memory_bytes"] / MB
    s.line = lambda p: estimates[p]  # type: ignore[method-assign]
    return s


# --- the database -----------------------------------------------------------------------------------------------------
@contextmanager
def daemon(build: Path, directory: str) -> Iterator[Callable[..., Any]]:
    """A daemon on a directory: a function that calls it. At the end it is stopped, and its journal is in the database."""
    command = [str(build / "backpropd"), "--listen", "127.0.0.1:0", "--data-dir", directory]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    url = ""
    for line in process.stderr:
        if found := re.search(r"ready on (http://[\d.:]+)", line):
            url = found[1]
            break

    def call(method: str, path: str, body: bytes | dict | None = None) -> Any:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        try:
            with urllib.request.urlopen(urllib.request.Request(url + path, data, method=method), timeout=120) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            sys.exit(f"{method} {path}: {error.read().decode()}")

    try:
        yield call
    finally:
        process.terminate()
        process.stderr.close()
        process.wait()


def database_mb(directory: str) -> float:
    return sum(file.stat().st_size for file in Path(directory).glob("backpropd.db*")) / MB


def upload(call: Callable[..., Any], rows: int, columns: int) -> None:
    lines = [",".join(f"x{i}" for i in range(columns)) + ",y"]
    lines += [",".join(str((r * 31 + c * 17) % 101) for c in range(columns)) + f",{'ab'[r % 2]}" for r in range(rows)]
    call("PUT", "/v1/datasets/growth", "\n".join(lines).encode())


def train(call: Callable[..., Any], spec: dict[str, Any]) -> dict[str, Any]:
    job = call("POST", "/v1/jobs?wait=60", {"dataset": "growth", "target": "y"} | spec)
    while job["status"] in ("queued", "running"):
        job = call("GET", f"/v1/jobs/{job['id']}?wait=60")
    if job["status"] != "succeeded":
        sys.exit(f"a job of the measurement ended as {job['status']}")
    return job


def checkpoints(bench: Bench) -> Series:
    """Jobs of one epoch, whose latest state is also the best: one state of parameters and two moments is kept of each."""
    s = Series("checkpoints", "kept checkpoints of 0.8 M parameters", "MB of the database", "12 bytes a parameter", lambda n: n)
    parameters = 0
    with tempfile.TemporaryDirectory() as directory:
        for n in range(1, 3 if bench.quick else 9):
            with daemon(bench.build, directory) as call:
                if n == 1:
                    upload(call, 200, 10)
                job = train(call, {"layers": [896, 896], "epochs": 1, "seed": n})
                parameters = job["model"]["parameters"]
            s.points.append((n, database_mb(directory)))
    s.line = lambda n: 12 * parameters * n / MB  # type: ignore[method-assign]
    return s


def metrics(bench: Bench) -> Series:
    s = Series("metrics", "thousand values of metrics", "MB of the database", "values x bytes of one", lambda n: n)
    values = 0
    with tempfile.TemporaryDirectory() as directory:
        for n in range(2 if bench.quick else 6):
            with daemon(bench.build, directory) as call:
                if n == 0:
                    upload(call, 64, 2)
                spec = {"layers": [4], "epochs": 500 if bench.quick else 10000, "batch_size": 32}
                job = train(call, spec | {"training": {"layer_stats": False}})
                values += sum(len(of["value"]) for of in call("GET", f"/v1/jobs/{job['id']}/metrics").values())
            s.points.append((values / 1e3, database_mb(directory)))
    return s


# --- the table --------------------------------------------------------------------------------------------------------
ALL = (width, depth, batch, rows, threads, memory, checkpoints, metrics)


def row(s: Series) -> list[str]:
    points = "; ".join(f"{report.short(x)}: {report.short(y)} ({100 * y / s.line(x):.0f} %)" for x, y in s.points)
    return [f"{s.y_label} over {s.x_label}", points, s.theory, f"[{s.name}](tests/bench/plots/{s.name}.svg)"]


def keep(done: list[Series], results: Path) -> None:
    """The plots, and the rows of the table: those measured before stay."""
    PLOTS.mkdir(exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    path = results / "growth.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    for s in done:
        (PLOTS / f"{s.name}.svg").write_text(plot.svg(s.points, s.line, s.x_label, s.y_label, s.theory))
        rows[s.name] = row(s)
    path.write_text(json.dumps(rows, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--only", default="", help="some of: " + ", ".join(measure.__name__ for measure in ALL))
    parser.add_argument("--quick", action="store_true", help="whether it runs at all: two points each, no files")
    args = parser.parse_args()
    bench, done = Bench(args.build, args.quick), []
    for measure in ALL:
        if not args.only or measure.__name__ in args.only.split(","):
            print(f"{measure.__name__} ({time.strftime('%H:%M:%S')})", file=sys.stderr, flush=True)
            done.append(measure(bench))
    if not args.quick:
        keep(done, ROOT / "build" / "bench")
    print(report.growth_table({s.name: row(s) for s in done}))


if __name__ == "__main__":
    main()
