#!/usr/bin/env python3
"""From a CSV to a model: this service beside H2O-3, the same rows and epochs, each through its own interface.

    submit.py [--build DIR] [--rows N] [--epochs E] [--out FILE]

The network is mnist-mlp of workloads.json. H2O's client and Java must be there for the Python that runs this; without
them ours is measured alone, and the reason is said. H2O updates with ADADELTA, ours with Adam; both standardize.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from growth import ROOT, daemon

HIDDEN, BATCH, PIXELS, CLASSES = [512, 256], 128, 784, 10


def write_csv(path: Path, rows: int) -> None:
    """Images of mostly black pixels, as digits are."""
    numbers = random.Random(1)
    with path.open("w") as file:
        file.write(",".join(f"p{i}" for i in range(PIXELS)) + ",digit\n")
        for _ in range(rows):
            pixels = (str(numbers.randrange(1, 256)) if numbers.random() < 0.2 else "0" for _ in range(PIXELS))
            file.write(",".join(pixels) + f",c{numbers.randrange(CLASSES)}\n")


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = action()
    return time.perf_counter() - begin, result


def ours(build: Path, csv: Path, epochs: int) -> tuple[float, float]:
    spec = {
        "dataset": "digits", "target": "digit", "layers": HIDDEN, "batch_size": BATCH, "epochs": epochs,
        "validation_split": 0,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as directory, daemon(build, directory) as call:
        upload, _ = timed(lambda: call("PUT", "/v1/datasets/digits", csv.read_bytes()))

        def train() -> None:
            job = call("POST", "/v1/jobs?wait=60", spec)
            while job["status"] in ("queued", "running"):
                job = call("GET", f"/v1/jobs/{job['id']}?wait=60")
            if job["status"] != "succeeded":
                sys.exit(f"the job ended as {job['status']}")

        return upload, timed(train)[0]


def theirs(csv: Path, epochs: int, port: int) -> tuple[float, float]:
    import h2o  # only where it was found
    from h2o.estimators import H2ODeepLearningEstimator

    h2o.init(ip="127.0.0.1", port=port, nthreads=len(os.sched_getaffinity(0)), max_mem_size="4g", bind_to_localhost=True)
    h2o.no_progress()
    try:
        upload, frame = timed(lambda: h2o.upload_file(str(csv), header=1))
        model = H2ODeepLearningEstimator(
            hidden=HIDDEN, activation="Rectifier", mini_batch_size=BATCH, epochs=epochs, train_samples_per_iteration=0,
            score_interval=1e6, score_duty_cycle=0.0, stopping_rounds=0,
        )  # fmt: skip
        return upload, timed(lambda: model.train(y="digit", training_frame=frame))[0]
    finally:
        h2o.cluster().shutdown()


def absent() -> str:
    """Why H2O-3 cannot be measured, or ""."""
    if shutil.which("java") is None:
        return "there is no Java"
    try:
        import h2o  # noqa: F401
    except ImportError:
        return f"{sys.executable} has no h2o"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--port", type=int, default=54331, help="of the JVM")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "submit.json")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    figures: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        csv = Path(directory) / "digits.csv"
        write_csv(csv, args.rows)
        figures["backpropd"] = ours(args.build, csv, args.epochs)
        if why := absent():
            print(f"WARNING: H2O-3 is left out: {why}", file=sys.stderr)
        else:
            figures["H2O-3"] = theirs(csv, args.epochs, args.port)
    services = [
        {"name": name, "upload_s": upload, "train_s": train, "samples_per_s": args.rows * args.epochs / train}
        for name, (upload, train) in figures.items()
    ]
    what = f"mnist-mlp from a CSV of {args.rows} rows, {args.epochs} epochs, over HTTP"
    args.out.write_text(json.dumps({"what": what, "services": services}, indent=1) + "\n")
    for of in services:
        print(f"{of['name']:10} upload {of['upload_s']:.2f} s, submit to model {of['train_s']:.2f} s")


if __name__ == "__main__":
    main()
