"""The instruments themselves: what backpropd-bench prints, and what is made of it. No test here judges a speed."""

import importlib
import json
import pathlib
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from conftest import EXECUTABLE, ROOT

HERE = pathlib.Path(__file__).parent
BENCH = pathlib.Path(EXECUTABLE).with_name("backpropd-bench")
FIELDS = {
    "workload", "threads", "simd", "samples_per_s", "flops_per_sample", "fma_peak_gflops", "simd_peak_gflops",
    "fraction_of_peak", "bytes_per_step", "bandwidth_gbs", "parameters", "memory_bytes", "table_bytes", "rss_bytes",
}  # fmt: skip
PARTS = ("forward_us", "backward_data_us", "backward_weights_us", "update_us", "other_us")


@pytest.fixture
def module(monkeypatch):
    """A script of this folder as a module."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module


def bench(*options):
    command = [BENCH, "--workloads", HERE / "workloads.json", "--seconds", "0.1", "--repeat", "1", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()], result.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_a_workload_and_its_profile(threads):
    (figures, *layers, step), table = bench("--only", "tiny-mlp", "--threads", str(threads), "--profile")
    assert set(figures) == FIELDS
    assert figures["threads"] == threads and figures["parameters"] == 4 * 16 + 16 + 16 * 16 + 16 + 16 * 3 + 3
    assert figures["samples_per_s"] > 0 and figures["rss_bytes"] > 0
    # parameters, gradients and two moments of Adam are each read and written, and the batch is read
    assert figures["bytes_per_step"] > 2 * 4 * 4 * figures["parameters"] + 32 * 5 * 4

    assert [layer["type"] for layer in layers] == ["dense", "activation", "dense", "activation", "dense"]
    assert step["type"] == "step" and "tiny-mlp" in table and "dense_0" in table
    assert sum(step[part] for part in PARTS) == pytest.approx(step["step_us"], rel=0.01)
    for part in PARTS[:4]:
        assert sum(layer[part] for layer in layers) == pytest.approx(step[part], rel=0.01, abs=0.01)
    assert layers[0]["backward_data_us"] == 0  # nobody asks for the gradient of the input
    assert min(step[part] for part in PARTS) > 0


def test_a_misuse_is_told():
    for options in (["--frobnicate"], ["--threads", "0"], ["--seconds"]):
        result = subprocess.run([BENCH, *options], capture_output=True, text=True, check=False)
        assert result.returncode == 64 and "usage: backpropd-bench" in result.stderr
    assert "--profile" in subprocess.run([BENCH, "--help"], capture_output=True, text=True, check=True).stdout


def result(ours, torch, kann):
    """What compare.py leaves of one workload."""
    peers = [{"peer_kind": "PyTorch", "samples_per_s": torch}, {"peer_kind": "kann", **kann}]
    line = bench("--only", "tiny-mlp", "--threads", "1", "--profile")[0]
    figures = line[0] | {"samples_per_s": ours, "fraction_of_peak": ours / 1000}
    workload = {"workload": "tiny-mlp", "goal": {"fraction_of_peak": 0.1, "best": 3, "PyTorch": 5}, "ours": figures}
    machine = {"cpu": "C", "processors": 2, "caches": "", "memory_gb": 1, "system": "S", "compiler": "cc"}
    return {"machine": machine, "threads": 1, "absent": {}, "workloads": [workload | {"profile": line[1:], "peers": peers}]}


def test_the_report(module, tmp_path, monkeypatch):
    report = module("report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    runs = [
        result(100, 10, {"samples_per_s": 20}),
        result(300, 20, {"samples_per_s": 50}),
        result(200, 16, {"failed": "why not"}),
    ]
    (workload,) = report.group(runs)
    assert (workload.rate, workload.fraction) == (200, 0.2)
    assert workload.against(["PyTorch"]) == (16, 12.5, "PyTorch")  # the median of 10, 15 and 12.5
    assert workload.against(["PyTorch", "kann"]) == (20, 6, "kann")
    assert workload.against(["JAX"]) is None
    assert "0.200 (goal 0.1: met)" in report.ratios(runs)
    assert "- [a]" in report.ratios(runs[2:]) and "[a] why not" in report.ratios(runs[2:])

    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):
        report.write_readme(page, report.section(runs))
        text = page.read_text()
        assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
        assert text.count("## Performance") == 1 and "What bounds each" in text


def test_a_run_without_peers(tmp_path):
    out = tmp_path / "result.json"
    command = [sys.executable, HERE / "compare.py", "--bench", BENCH, "--only", "tiny-mlp", "--peers", "none"]
    subprocess.run([*command, "--seconds", "0.05", "--out", out], check=True, capture_output=True, cwd=ROOT, timeout=300)
    (workload,) = json.loads(out.read_text())["workloads"]
    assert workload["ours"]["samples_per_s"] > 0 and workload["peers"] == []


def test_a_plot_is_an_image(module):
    text = module("plot").svg([(1, 10), (10, 90), (100, 1000)], lambda x: 10 * x, "rows & more", "samples/s", "a <line>")
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg") and len(root.findall(".//{*}polyline")) == 2
