#!/usr/bin/env python3
"""Runs backpropd-bench beside its peers, workload by workload, and keeps everything in one JSON file.

scripts/bench.sh calls it with everything in place; see --help. Of each workload ours is measured at the start, in the
middle and at the end, and the peers one after the other between: so a machine that drifts drifts for all. A peer counts
with the better of one thread and all. A peer that fails, or does not answer in time, is a dash with a footnote.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import report

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROCESSORS = sorted(os.sched_getaffinity(0))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- peers ------------------------------------------------------------------------------------------------------------
@dataclass
class Kind:
    """How a peer is run. pinned: its threads are the processors that it may use, so that each number of threads is a
    process of its own. all_only: measured with all threads only."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    pinned: bool = False
    all_only: bool = False


class Peer:
    """A process that answers requests, started with its first one, and anew after it died or had to be stopped."""

    def __init__(self, kind: Kind, threads: int) -> None:
        self.kind = kind
        self.processors = PROCESSORS[:threads] if kind.pinned else PROCESSORS
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        # Settings for OpenBLAS in the environment are for another machine, or for other programs.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")} | self.kind.environment
        log = open(ROOT / "build" / "bench" / "peers.log", "a")  # the process keeps it
        pin = ["taskset", "-c", ",".join(map(str, self.processors))]
        return subprocess.Popen(
            pin + self.kind.command, cwd=HERE, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True, bufsize=1,
        )  # fmt: skip

    def ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        if self.process is None or self.process.poll() is not None:
            self.process = self.start()
        assert self.process.stdin and self.process.stdout
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            ready, _, _ = select.select([self.process.stdout], [], [], limit)
            line = self.process.stdout.readline() if ready else ""
        except OSError:
            line, ready = "", [0]
        if not line:
            self.stop()
            return {"failed": "it ended without an answer, see build/bench/peers.log" if ready else f"no answer in {limit:.0f} s"}
        return json.loads(line)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            for end in (self.process.terminate, self.process.kill):
                try:
                    self.process.wait(10)
                except subprocess.TimeoutExpired:
                    end()
            self.process.wait()
            self.process = None


def importable(python: str, module: str, path: str = "") -> bool:
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec('{module}') is None)"
    environment = os.environ | ({"PYTHONPATH": path} if path else {})
    try:
        return subprocess.run([python, "-c", code], env=environment, capture_output=True, check=False).returncode == 0
    except OSError:  # no such interpreter
        return False


def kinds(venv: Path, debian: str) -> Iterator[tuple[Kind, str]]:
    """All peers, each with the reason for which it cannot be measured here, or ""."""
    python, blas = str(venv / "bin" / "python"), str(venv / "kann-openblas")

    def missing(interpreter: str, module: str, path: str = "") -> str:
        return "" if importable(interpreter, module, path) else f"{interpreter} has no {module}"

    torch = missing(python, "torch")
    yield Kind("PyTorch", [python, "peer_torch.py"]), torch
    yield Kind("PyTorch compiled", [python, "peer_torch.py", "--compile"]), torch
    yield Kind("PyTorch of Debian", [debian, "peer_torch.py"]), missing(debian, "torch")
    yield Kind("JAX", [python, "peer_jax.py"], pinned=True), missing(python, "jax")
    yield Kind("scikit-learn", [python, "peer_sklearn.py"]), missing(python, "sklearn")
    yield Kind("kann", [python, "peer_kann.py"]), missing(python, "cynn")
    with_blas = {"PYTHONPATH": blas}
    yield (
        Kind("kann with OpenBLAS", [python, "peer_kann.py", "kann with OpenBLAS"], with_blas),
        "" if (Path(blas) / "cynn").is_dir() else f"there is no {blas}",
    )
    java = "" if shutil.which("java") else "there is no Java"
    yield Kind("H2O-3", [python, "peer_h2o.py"], all_only=True), java or missing(python, "h2o")


# --- measuring --------------------------------------------------------------------------------------------------------
def ours(args: argparse.Namespace, name: str, *options: str, seconds: float) -> list[dict[str, Any]]:
    command = [args.bench, "--workloads", args.workloads, "--only", name, "--seconds", str(seconds), "--repeat", "1"]
    command += ["--threads", str(args.threads), *options]
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    if result.returncode:
        sys.exit(f"{' '.join(command)}: {result.stderr}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def better(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return other if other.get("samples_per_s", 0) > one.get("samples_per_s", 0) else one


def measure_peer(kind: Kind, peers: dict[int, Peer], workload: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """With all threads; then with one, which is tried once, and measured as often only where it comes near."""

    def ask(threads: int, repeat: int) -> dict[str, Any]:
        peer = peers.setdefault(threads if kind.pinned else 0, Peer(kind, threads))
        request = {"workload": workload, "threads": threads, "seconds": args.seconds, "repeat": repeat}
        return peer.ask(request, args.limit) | {"peer_kind": kind.name}

    best = ask(args.threads, args.repeat)
    if "failed" not in best and args.threads > 1 and not kind.all_only:
        one = ask(1, 1)
        if args.repeat > 1 and one.get("samples_per_s", 0) > 0.8 * best["samples_per_s"]:
            one = better(one, ask(1, args.repeat))
        best = better(best, one)
    say(f"  {kind.name:20} {best.get('samples_per_s', best.get('failed'))}  ({time.strftime('%H:%M:%S')})")
    return best


def best_of(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest, as a fraction of the highest peak that was seen: a machine that is disturbed shows a low one."""
    best = max(lines, key=lambda line: line["samples_per_s"])
    peak = max(line["fma_peak_gflops"] for line in lines)
    gflops = best["samples_per_s"] * best["flops_per_sample"] * 1e-9
    return best | {"fma_peak_gflops": peak, "fraction_of_peak": round(gflops / peak, 3) if peak else 0}


def measure(workload: dict[str, Any], able: list[tuple[Kind, dict[int, Peer]]], args: argparse.Namespace) -> dict[str, Any]:
    name = workload["name"]
    say(f"{name} ({time.strftime('%H:%M:%S')})")
    lines = ours(args, name, seconds=args.seconds)
    results = []
    for i, (kind, peers) in enumerate(able):
        results.append(measure_peer(kind, peers, workload, args))
        if i == len(able) // 2:
            lines += ours(args, name, seconds=args.seconds)
    last, *profile = ours(args, name, "--profile", seconds=max(args.seconds, 0.4))  # some steps of each layer
    best = best_of([*lines, last])
    say(f"  {'backpropd':20} {best['samples_per_s']}  {best['fraction_of_peak']:.3f} of the peak")
    return {"workload": name, "goal": workload.get("goal", {}), "ours": best, "profile": profile, "peers": results}


def command_line(text: str) -> str:
    return subprocess.run(text, shell=True, check=False, capture_output=True, text=True).stdout.strip()


def machine() -> dict[str, Any]:
    cpuinfo, meminfo = Path("/proc/cpuinfo").read_text(), Path("/proc/meminfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    return {
        "cpu": model.group(1) if model else platform.machine(),
        "processors": len(PROCESSORS),
        "memory_gb": round(int(re.search(r"MemTotal:\s*(\d+)", meminfo).group(1)) / 1e6),
        "caches": command_line("lscpu -C=NAME,ONE-SIZE --noheadings | awk '{print $1\" \"$2}' | paste -sd, | sed 's/,/, /g'"),
        "system": command_line(". /etc/os-release && echo $PRETTY_NAME") + ", Linux " + platform.release(),
        "commit": command_line(f"git -C {ROOT} rev-parse --short HEAD"),
        "compiler": command_line("cc --version | head -1"),
        "load": os.getloadavg()[0],
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", default=str(ROOT / "build" / "backpropd-bench"))
    parser.add_argument("--workloads", default=str(HERE / "workloads.json"))
    parser.add_argument("--only", default="", help="workloads, separated by commas")
    parser.add_argument("--peers", default="", help="peers, separated by commas; 'none' for none")
    parser.add_argument("--venv", type=Path, default=ROOT / "build" / "bench-venv")
    parser.add_argument("--debian", default="/usr/bin/python3", help="the Python that has the distribution's PyTorch")
    parser.add_argument("--threads", type=int, default=len(PROCESSORS))
    parser.add_argument("--seconds", type=float, default=0.4, help="of a repeat")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--limit", type=float, default=60, help="seconds for an answer of a peer, compilation included")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / time.strftime("%Y%m%d-%H%M%S.json"))
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    (ROOT / "build" / "bench").mkdir(parents=True, exist_ok=True)
    wanted = [name for name in args.peers.split(",") if name]
    able: list[tuple[Kind, dict[int, Peer]]] = []
    absent: dict[str, str] = {}
    for kind, reason in () if args.peers == "none" else kinds(args.venv, args.debian):
        if wanted and kind.name not in wanted:
            continue
        if reason:
            absent[kind.name] = reason
            say(f"WARNING: {kind.name} is left out: {reason}")
        else:
            able.append((kind, {}))
    workloads = json.loads(Path(args.workloads).read_text())
    chosen = [w for w in workloads if not args.only or w["name"] in args.only.split(",")]
    begin = time.time()
    try:
        result = {"machine": machine(), "threads": args.threads, "absent": absent}
        result["workloads"] = [measure(w, able, args) for w in chosen]
    finally:
        for _, peers in able:
            for peer in peers.values():
                peer.stop()
    result["seconds"] = round(time.time() - begin, 1)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    say(f"{args.out} ({result['seconds']} s)\n")
    print(report.ratios([result]))


if __name__ == "__main__":
    main()
