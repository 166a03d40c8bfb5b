#!/usr/bin/env python3
"""From the results of scripts/bench.sh to tables: medians over runs, ratios, what bounds each workload.

    report.py [--readme FILE] [--last N] [RESULT…]

Without results: the newest N (default 3) of build/bench. With --readme the section between the markers of that file is
written anew, with build/bench/service.jsonl, submit.json and growth.json where they are there; else a table is printed.
Only ratios of figures of one run go into a median of ratios.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "build" / "bench"
BEGIN, END = "<!-- performance: begin -->", "<!-- performance: end -->"
Result = dict[str, Any]


def short(value: float) -> str:
    """Three digits: 12.3 M, 160 k, 9.87."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}" if value / limit < 1000 else f"{value / limit:.0f}{unit}"
    return f"{value:.3g}"


def table(rows: list[list[str]]) -> str:
    """Markdown that is also readable as it is."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)


# --- one workload over all runs ---------------------------------------------------------------------------------------
class Workload:
    """The runs of a workload, and what they come to."""

    def __init__(self, runs: list[dict[str, Any]]) -> None:
        self.runs = runs
        self.name: str = runs[-1]["workload"]
        self.goal: dict[str, float] = runs[-1]["goal"]
        self.rate = median(run["ours"]["samples_per_s"] for run in runs)
        self.fraction = median(run["ours"]["fraction_of_peak"] for run in runs)

    def peer_kinds(self) -> list[str]:
        return list(dict.fromkeys(peer["peer_kind"] for run in self.runs for peer in run["peers"]))

    def rates(self, kinds: Iterable[str]) -> list[tuple[float, float, str]]:
        """Of each run, the best of some peers: (its rate, ours over it, which)."""
        ret = []
        for run in self.runs:
            of = [p for p in run["peers"] if p["peer_kind"] in kinds and p.get("samples_per_s", 0) > 0]
            if of:
                best = max(of, key=lambda p: p["samples_per_s"])
                ret.append((best["samples_per_s"], run["ours"]["samples_per_s"] / best["samples_per_s"], best["peer_kind"]))
        return ret

    def against(self, kinds: Iterable[str]) -> tuple[float, float, str] | None:
        """Medians: (peer's rate, ratio, its name)."""
        rates = self.rates(set(kinds))
        if not rates:
            return None
        name = Counter(rate[2] for rate in rates).most_common(1)[0][0]
        return median(r[0] for r in rates), median(r[1] for r in rates), name

    def failure(self, kind: str) -> str:
        for run in reversed(self.runs):
            for peer in run["peers"]:
                if peer["peer_kind"] == kind and "failed" in peer:
                    return peer["failed"]
        return ""


def group(results: list[Result]) -> list[Workload]:
    names = dict.fromkeys(w["workload"] for result in results for w in result["workloads"])
    return [Workload([w for result in results for w in result["workloads"] if w["workload"] == name]) for name in names]


def verdict(value: float, goal: float | None, digits: int) -> str:
    """A figure with its goal, and whether it is met."""
    text = f"{value:.{digits}f}"
    if goal is None:
        return text
    return f"{text} (goal {goal:g}: {'met' if value >= goal else 'missed'})"


def torch_kinds(workload: Workload) -> list[str]:
    return [kind for kind in workload.peer_kinds() if kind.startswith("PyTorch")]


def summary(workloads: list[Workload]) -> str:
    rows = [["workload", "samples/s", "fraction of the FMA peak", "best peer", "ours over it", "ours over the best PyTorch"]]
    for w in workloads:
        best, torch = w.against(w.peer_kinds()), w.against(torch_kinds(w))
        rows.append(
            [
                w.name,
                short(w.rate),
                verdict(w.fraction, w.goal.get("fraction_of_peak"), 3),
                f"{best[2]}, {short(best[0])}" if best else "-",
                verdict(best[1], w.goal.get("best"), 2) if best else "-",
                verdict(torch[1], w.goal.get("PyTorch"), 2) if torch else "-",
            ]
        )
    return table(rows)


def all_peers(workloads: list[Workload]) -> str:
    """Rate and ratio of each peer, a dash with a footnote where there is none."""
    kinds = list(dict.fromkeys(kind for w in workloads for kind in w.peer_kinds()))
    notes: dict[str, str] = {}
    rows = [["samples/s (ours over it)", *(w.name for w in workloads)], ["**backpropd**", *(short(w.rate) for w in workloads)]]
    for kind in kinds:
        row = [kind]
        for w in workloads:
            figure = w.against([kind])
            why = w.failure(kind)
            if figure:
                row.append(f"{short(figure[0])} ({figure[1]:.3g}x)")
            else:
                row.append(f"- [{notes.setdefault(why, chr(ord('a') + len(notes)))}]" if why else "-")
        rows.append(row)
    footnotes = "\n".join(f"[{mark}] {why}  " for why, mark in notes.items())
    return table(rows) + ("\n\n" + footnotes if footnotes else "")


def ratios(results: list[Result]) -> str:
    workloads = group(results)
    absent = {k: v for result in results for k, v in result["absent"].items()}
    text = summary(workloads) + "\n\n" + all_peers(workloads)
    return text + "".join(f"\n{kind} is missing: {why}" for kind, why in absent.items())


# --- what bounds each -------------------------------------------------------------------------------------------------
BATCH = {w["name"]: w["batch"] for w in json.loads(Path(__file__).with_name("workloads.json").read_text())}
PRODUCTS = ("dense", "conv1d", "conv2d", "conv", "simple_rnn", "lstm", "gru", "multi_head_attention")
SHARES = ["matrix products", "layers between", "update", "check", "gather", "loss, metrics", "waiting", "loop"]


def shares(profile: list[dict[str, Any]]) -> list[float]:
    """Fractions of a step, in the order of SHARES."""
    step = next(line for line in profile if line["type"] == "step")
    layers = [line for line in profile if line["type"] != "step"]

    def passes(of: Iterable[dict[str, Any]]) -> float:
        return sum(line["forward_us"] + line["backward_data_us"] + line["backward_weights_us"] for line in of)

    products = passes(line for line in layers if line["type"] in PRODUCTS)
    parts = [products, passes(layers) - products, step["update_us"], step["check_us"], step["gather_us"]]
    parts += [step["loss_us"] + step["metrics_us"], step["wait_us"], step["host_us"]]
    return [part / step["step_us"] for part in parts]


def bound(w: Workload) -> list[str]:
    """A row: the step, the times that the roofs allow, and the shares, of the run whose profile was disturbed least."""
    steps = [next(line for line in run["profile"] if line["type"] == "step")["step_us"] for run in w.runs]
    run = w.runs[steps.index(min(steps))]
    ours, batch = run["ours"], BATCH[w.name]
    compute = ours["flops_per_sample"] * batch / (ours["fma_peak_gflops"] * 1e3)
    memory = ours["bytes_per_step"] / (ours["bandwidth_gbs"] * 1e3) if ours["bandwidth_gbs"] else 0
    parts = shares(run["profile"])
    return [
        w.name,
        f"{min(steps):,.1f}",
        f"{compute:,.1f}",
        f"{memory:,.1f}",
        f"{ours['bytes_per_step'] / 1e6:.3g}",
        *(f"{100 * part:.0f} %" for part in parts),
    ]


def bounds(workloads: list[Workload]) -> str:
    able = [w for w in workloads if all(run["profile"] for run in w.runs)]
    head = ["workload", "step, µs", "at the FMA peak, µs", "its bytes at the bandwidth of their size, µs", "MB a step"]
    return table([[*head, *SHARES], *(bound(w) for w in able)])


# --- the README -------------------------------------------------------------------------------------------------------
def service() -> str:
    """Figures of the service, as scripts/bench_service.sh leaves them; a goal is of the ratio where there is one."""
    path = RESULTS / "service.jsonl"
    if not path.exists():
        return ""
    rows = [["measure", "value", "bare library", "ratio", "goal", ""]]
    for line in path.read_text().splitlines():
        of = json.loads(line)
        bare, ratio, goal, met = (of.get(name) for name in ("bare", "ratio", "goal", "met"))
        rows.append(
            [
                of["measure"],
                f"{short(of['value'])} {of['unit']}",
                "" if bare is None else f"{short(bare)} {of['unit']}",
                "" if ratio is None else f"{ratio:.2f}",
                "" if goal is None else f"{goal:g}",
                "" if met is None else "met" if met else "missed",
            ]
        )
    return (
        "\n### The service\n\nBy `scripts/bench_service.sh`, against the bare libraries in the same run.\n\n" + table(rows) + "\n"
    )


def submit() -> str:
    path = RESULTS / "submit.json"
    if not path.exists():
        return ""
    of = json.loads(path.read_text())
    rows = [["from a CSV to a model over HTTP", "upload and parse, s", "submit to model, s", "samples/s of that"]]
    rows += [[p["name"], f"{p['upload_s']:.2f}", f"{p['train_s']:.2f}", short(p["samples_per_s"])] for p in of["services"]]
    return f"\n{of['what']}:\n\n{table(rows)}\n"


def growth_table(rows: dict[str, list[str]]) -> str:
    return table([["", "points: x, measured (of the theory)", "theory", "plot"], *rows.values()])


def growth() -> str:
    path = RESULTS / "growth.json"
    if not path.exists():
        return ""
    return f"""
### How cost grows

By `scripts/growth.sh`. A theory that knows a shape only goes through the last point; each point says how much of the theory
it reaches.

{growth_table(json.loads(path.read_text()))}
"""


def section(results: list[Result]) -> str:
    m, workloads = results[-1]["machine"], group(results)
    parts = [m["cpu"], f"{m['processors']} processors", m["caches"], f"{m['memory_gb']} GB", m["system"], m["compiler"]]
    flops = median(w.runs[-1]["ours"]["fma_peak_gflops"] for w in workloads)
    return f"""## Performance

Medians of {len(results)} run{"s" * (len(results) > 1)} of `scripts/bench.sh` on this machine: {", ".join(filter(None, parts))}.
Its FMA units give {flops:.0f} GFLOP/s in float32 on {results[-1]["threads"]} threads, measured in the
same runs. Steps are real ones: shuffled batches from a stored table, forward, loss, backward, the check of the
gradients, the update. Each peer counts with the better of one thread and all.

{summary(workloads)}

{all_peers(workloads)}

kann updates with RMSprop and H2O-3 with ADADELTA; H2O-3 is measured through its client, from submit to model.

### What bounds each

From `build/backpropd-bench --profile`: where the time of a step goes, beside the two roofs that no step gets through:
its operations at the FMA peak, and the bytes that it must move at the speed at which these threads sweep over so many.

{bounds(workloads)}
{submit()}{service()}{growth()}"""


def write_readme(path: Path, text: str) -> None:
    old = path.read_text()
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    new, count = pattern.subn(lambda _: f"{BEGIN}\n{text.strip()}\n{END}", old)
    if count != 1:
        sys.exit(f"{path} has no pair of markers {BEGIN} … {END}")
    path.write_text(new)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", type=Path)
    parser.add_argument("--last", type=int, default=3)
    parser.add_argument("--readme", type=Path)
    args = parser.parse_args()
    files = args.results or sorted(RESULTS.glob("2*.json"))[-args.last :]
    if not files:
        sys.exit("no results: run scripts/bench.sh first")
    results = [json.loads(file.read_text()) for file in files]
    if args.readme:
        write_readme(args.readme, section(results))
    else:
        print(ratios(results))


if __name__ == "__main__":
    main()
