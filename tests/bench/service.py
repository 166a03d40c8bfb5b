"""The daemon and its store against the bare libraries below them, all in one run.

Each measure is printed as a line of JSON, {"measure", "value", "unit", "bare", "ratio", "goal", "met"}, and all of them as
a table at the end. `bare` is what the library alone gives (libmicrohttpd, SQLite, the disk), where there is one, and the
goal is then a share of it; else the goal is a bound on the value. scripts/bench_service.sh runs this.
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

TICK = os.sysconf("SC_CLK_TCK")
DEFAULT_INTERVAL = 30.0  # seconds between checkpoints that a spec gets by default


def median_interval(values):
    """Of the median of what the values are drawn from, whatever its distribution: with 95 of 100."""
    ordered, n = sorted(values), len(values)
    out = max(0, int(n / 2 - 0.98 * n**0.5))
    return ordered[out], ordered[n - 1 - out]


def width(interval):
    return interval[1] - interval[0]


class Daemon:
    def __init__(self, bench, data_dir, *options):
        self.data_dir = data_dir
        begin = time.perf_counter()
        self.process = subprocess.Popen(
            [bench.build / "backpropd", "--listen", "127.0.0.1:0", "--data-dir", data_dir, *options],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stderr:
            ready = re.search(r"ready on (http://127\.0\.0\.1:(\d+))", line)
            if ready:
                self.start_ms = 1e3 * (time.perf_counter() - begin)
                self.url, self.port = ready[1], ready[2]
                return
        sys.exit("the daemon did not start")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.stderr.close()
        self.process.wait()

    def call(self, path, body=None, method=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.read()
        except urllib.error.HTTPError as error:
            sys.exit(f"{path}: {error.read().decode()}")

    def get(self, path):
        return json.loads(self.call(path))

    def upload(self, name, path):
        """Seconds until the dataset is there."""
        out = subprocess.run(
            ["curl", "-sSf", "-o", os.devnull, "-w", "%{time_total}", "-T", path, f"{self.url}/v1/datasets/{name}"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return float(out.stdout)

    def submit(self, spec):
        return json.loads(self.call("/v1/jobs", spec))["id"]

    def cpu(self):
        """Seconds of processor time so far."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self, key):
        """MB, by a key of /proc/PID/status."""
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{key}:\s+(\d+) kB", text)[1]) / 1024

    def rate(self, job, seconds):
        """Samples a second by the trainer's own clock, over a stretch of time."""
        first = self.get(f"/v1/jobs/{job}")["progress"]
        time.sleep(seconds)
        last = self.get(f"/v1/jobs/{job}")["progress"]
        return (last["samples"] - first["samples"]) / (last["training_seconds"] - first["training_seconds"])

    def until_trains(self, job):
        while self.get(f"/v1/jobs/{job}")["progress"]["step"] < 20:
            time.sleep(0.05)


class Bench:
    def __init__(self, options):
        self.build = pathlib.Path(options.build).resolve()
        self.quick = options.quick
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="backpropd-bench-", dir=options.work))
        self.rows = []
        self.store_rows = None
        self.serial = 0

    def pick(self, full, quick):
        return quick if self.quick else full

    def fresh(self):
        self.serial += 1
        return self.work / f"data{self.serial}"

    def report(self, measure, value, unit, goal, bare=None, at_most=False, **more):
        """With `bare` the goal is a share of it. at_most: less is better."""
        ratio = None if bare is None else value / bare
        judged = value if ratio is None else ratio
        row = {
            "measure": measure,
            "value": round(value, 3),
            "unit": unit,
            "bare": bare and round(bare, 1),
            "ratio": ratio and round(ratio, 3),
            "goal": goal,
            "met": None if goal is None else judged <= goal if at_most else judged >= goal,
            **more,
        }
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def load(self, port, clients, requests, rate, method, path, body=""):
        out = subprocess.run(
            [self.build / "backpropd-bench-http", "load", port, str(clients), str(requests), str(rate), method, path, body],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return json.loads(out.stdout)

    # --- datasets ---

    def csv(self, name, header, block, megabytes):
        path = self.work / f"{name}.csv"
        text = block.encode()
        with open(path, "wb") as file:
            file.write(header.encode() + b"\n")
            for _ in range(max(1, int(megabytes * 1e6) // len(text))):
                file.write(text)
        return path

    def mixed_csv(self, megabytes):
        """Numbers with few and many digits, a category, a missing value now and then."""
        r = random.Random(1)
        block = "".join(
            f"{r.random() * 100:.6f},{r.random() - 0.5:.3f},{r.randrange(10**6)},{r.choice(['red', 'green', 'blue'])},"
            f"{'' if r.random() < 0.02 else format(r.random(), '.4f')},{r.random() * 1e-5:.10g},{i % 2}\n"
            for i in range(50000)
        )
        return self.csv("mixed", "a,b,count,color,sometimes,tiny,label", block, megabytes)

    def float_csv(self, megabytes, columns=20, rows=10000):
        r = random.Random(2)
        block = "".join(",".join(f"{r.gauss(0, 1):.6f}" for _ in range(columns)) + f",{i % 10}\n" for i in range(rows))
        return self.csv("floats", ",".join([f"x{i}" for i in range(columns)] + ["label"]), block, megabytes)

    def pixel_csv(self, megabytes):
        """Digits as MNIST has them in CSV: 785 small integers a row, most of them 0."""
        r = random.Random(3)
        block = "".join(
            ",".join([str(i % 10)] + [str(r.randrange(256)) if r.random() < 0.2 else "0" for _ in range(784)]) + "\n"
            for i in range(500)
        )
        return self.csv("pixels", ",".join(["label"] + [f"p{i}" for i in range(784)]), block, megabytes)

    # --- the measures ---

    def idle(self):
        with Daemon(self, self.fresh()) as daemon:
            time.sleep(0.5)
            before = daemon.cpu()
            seconds = self.pick(4, 2)
            time.sleep(seconds)
            used = (daemon.cpu() - before) / seconds
            self.report("idle_memory", daemon.memory("VmRSS"), "MB", 15, at_most=True)
            self.report("idle_cpu", 100 * used, "% of a core", 0.5, at_most=True)

    def uploads(self):
        files = [
            ("mixed", self.mixed_csv, self.pick(1000, 30), 250),
            ("floats", self.float_csv, self.pick(200, 20), 250),
            ("pixels", self.pixel_csv, self.pick(200, 20), None),
        ]
        for name, make, megabytes, goal in files:
            path = make(megabytes)
            with Daemon(self, self.fresh(), "--max-upload", "64G") as daemon:
                size, memory, before = path.stat().st_size / 1e6, daemon.memory("VmRSS"), daemon.cpu()
                seconds = daemon.upload(name, path)
                self.report(
                    f"csv_{name}",
                    size / (daemon.cpu() - before),
                    "MB/s a core",
                    goal,
                    wall=round(size / seconds, 1),
                    grown_mb=round(daemon.memory("VmHWM") - memory, 1),
                    megabytes=round(size),
                )
            path.unlink()
            shutil.rmtree(daemon.data_dir)

    def idx(self):
        """Against writing and syncing as many bytes to the same disk: the file as uploaded, and its table."""
        rows = self.pick(500000, 30000)
        path = self.work / "images.idx"
        block = random.Random(4).randbytes(784 * 1000)
        with open(path, "wb") as file:
            file.write(struct.pack(">IIII", 0x803, rows, 28, 28))
            for _ in range(rows // 1000):
                file.write(block)
        begin = time.perf_counter()
        for copy in ("copy1", "copy2"):
            with open(path, "rb") as source, open(self.work / copy, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
        bare = time.perf_counter() - begin
        size = path.stat().st_size / 1e6
        with Daemon(self, self.fresh()) as daemon:
            seconds = daemon.upload("images", path)
        self.report("idx_upload", size / seconds, "MB/s", 0.5, bare=size / bare)
        for file in (path, self.work / "copy1", self.work / "copy2"):
            file.unlink()
        shutil.rmtree(daemon.data_dir)

    def finished_job(self, daemon):
        daemon.upload("small", self.float_csv(0.001, columns=4, rows=150))
        return json.loads(
            daemon.call(
                "/v1/jobs?wait=30", {"dataset": "small", "target": "label", "task": "classification", "layers": [16], "epochs": 5}
            )
        )["id"]

    def wrk(self, url):
        out = subprocess.run(
            ["wrk", "-t1", "-c16", f"-d{self.pick(4, 1)}", url], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        return float(re.search(r"Requests/sec:\s*([\d.]+)", out)[1])

    def polls(self):
        """Status polls of an ended and of a running job, against a bare server; the runs take turns."""
        if not shutil.which("wrk"):
            print("polls: left out, because wrk is not installed (apt-get install wrk)", file=sys.stderr)
            return
        with Daemon(self, self.fresh(), "--threads", "1") as daemon:
            ended = f"/v1/jobs/{self.finished_job(daemon)}"
            size = len(daemon.call(ended))
            bare = subprocess.Popen(
                [self.build / "backpropd-bench-http", "serve", str(size)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            port = bare.stdout.readline().strip()
            pairs = [(self.wrk(daemon.url + ended), self.wrk(f"http://127.0.0.1:{port}/")) for _ in range(3)]
            bare.communicate()
            self.report(
                "status_polls",
                statistics.median(p[0] for p in pairs),
                "polls/s",
                0.6,
                bare=statistics.median(p[1] for p in pairs),
                reply_bytes=size,
            )

    def training_polls(self):
        """500 polls a second while every core trains: what they cost the trainer, and how long they take.

        Short stretches with and without polls take turns, so that each pair sees the machine in one state; which of the two
        comes first alternates too. The answer is the median of the pairs' differences, and there are as many pairs as it
        takes until the interval that covers the true median in 95 of 100 cases is two points wide. A step takes several
        milliseconds: of shorter ones the trainer tries from time to time whether fewer threads are quicker.
        """
        seconds, pairs = 0.4, self.pick((20, 150), (4, 4))
        with Daemon(self, self.fresh()) as daemon:
            daemon.upload("wide", self.float_csv(8, columns=64, rows=5000))
            job = daemon.submit(
                {
                    "dataset": "wide",
                    "target": "label",
                    "task": "classification",
                    "layers": [1024, 1024],
                    "batch_size": 256,
                    "epochs": 100000,
                    "training": {"checkpoint": {"every_epochs": None, "every_seconds": None}},
                }
            )
            daemon.until_trains(job)
            costs, slow, busy, begin = [], [], daemon.cpu(), time.perf_counter()
            while len(costs) < pairs[0] or (len(costs) < pairs[1] and width(median_interval(costs)) > 2):
                rates = {}
                for polls in (False, True) if len(costs) % 2 else (True, False):
                    rates[polls], p99 = self.rate_polled(daemon, job, seconds, 500 if polls else 0)
                    slow += [p99] if polls else []
                costs.append(100 * (1 - rates[True] / rates[False]))
            busy = (daemon.cpu() - busy) / (time.perf_counter() - begin)
            daemon.call(f"/v1/jobs/{job}/cancel", method="POST")
        self.report(
            "polls_cost_training",
            statistics.median(costs),
            "%",
            3,
            at_most=True,
            interval=[round(x, 2) for x in median_interval(costs)],
            quartiles=[round(x, 2) for x in statistics.quantiles(costs, n=4)[::2]],
            pairs=len(costs),
            cores=round(busy, 2),
        )
        self.report("polls_p99_training", statistics.median(slow), "ms", 20, at_most=True)

    def rate_polled(self, daemon, job, seconds, a_second):
        """The rate while one client polls so many times a second, and its p99 in ms."""
        settle = 0.15  # what is told of a job may be from the stretch before
        if not a_second:
            time.sleep(settle)
            return daemon.rate(job, seconds), None
        requests = str(int(a_second * (seconds + settle)))
        polls = subprocess.Popen(
            [self.build / "backpropd-bench-http", "load", daemon.port, "1", requests, str(a_second), "GET", f"/v1/jobs/{job}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(settle)
        rate = daemon.rate(job, seconds)
        return rate, json.loads(polls.communicate()[0])["p99_ms"]

    def checkpoints(self):
        """What checkpoints of a 100 MB state cost the trainer, with and without them in turn."""
        runs, seconds, every = self.pick(2, 1), self.pick(9, 4), self.pick(3, 2)
        with Daemon(self, self.fresh()) as daemon:
            daemon.upload("pixels", self.pixel_csv(self.pick(8, 4)))
            rates, counts, size = {None: [], every: []}, [], 0
            for _ in range(runs):
                for interval in (every, None):
                    job = daemon.submit(
                        {
                            "dataset": "pixels",
                            "target": "label",
                            "task": "classification",
                            "layers": [2560, 2560],
                            "batch_size": 256,
                            "epochs": 100000,
                            "optimizer": "adam",
                            "training": {"checkpoint": {"every_epochs": None, "every_seconds": interval}},
                        }
                    )
                    daemon.until_trains(job)
                    rates[interval].append(daemon.rate(job, seconds))
                    daemon.call(f"/v1/jobs/{job}/cancel", method="POST")
                    while daemon.get(f"/v1/jobs/{job}")["status"] != "cancelled":
                        time.sleep(0.05)
                    if interval:
                        size = max([c["bytes"] for c in daemon.get(f"/v1/jobs/{job}/checkpoints")["data"]], default=0)
        share = 1 - statistics.median(rates[every]) / statistics.median(rates[None])
        self.report(
            "checkpoint_cost",
            100 * share * every / DEFAULT_INTERVAL,
            "%",
            3,
            at_most=True,
            state_mb=round(size / 1e6, 1),
            seconds_each=round(share * every, 3),
        )

    def large_database(self):
        jobs, points = self.pick(10000, 300), self.pick(10000000, 100000)
        data = self.fresh()
        with Daemon(self, data) as daemon:
            self.finished_job(daemon)
        subprocess.run([self.build / "backpropd-bench-store", "fill", data, str(jobs), str(points)], check=True)
        starts = []
        for _ in range(self.pick(5, 3)):
            with Daemon(self, data) as daemon:
                starts.append(daemon.start_ms)
        self.report(
            "start_to_ready",
            statistics.median(starts),
            "ms",
            50,
            at_most=True,
            worst=round(max(starts), 1),
            jobs=jobs,
            points=points,
        )
        with Daemon(self, data) as daemon:
            newest = daemon.get("/v1/jobs?limit=1")["data"][0]["id"]
            n = self.pick(300, 50)
            for measure, path in (("list_jobs_p99", "/v1/jobs"), ("read_metrics_p99", f"/v1/jobs/{newest}/metrics")):
                took = self.load(daemon.port, 1, n, 0, "GET", path)
                self.report(measure, took["p99_ms"], "ms", 10, at_most=True, median=took["p50_ms"])
        shutil.rmtree(data)

    def bare_store(self):
        if self.store_rows is None:
            out = subprocess.run(
                [self.build / "backpropd-bench-store", self.work, str(self.pick(5, 1))],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout
            self.store_rows = [json.loads(line) for line in out.splitlines()]
        return self.store_rows

    def store(self):
        for row in self.bare_store():
            self.report(row["measure"], row["value"], row["unit"], row["goal"], bare=row["bare"])

    def submissions(self):
        """POST /v1/jobs from specs to acknowledged jobs, against bare commits. The one worker is busy meanwhile."""
        bare = next(row["bare"] for row in self.bare_store() if row["measure"] == "durable_writes_1_client")
        spec = {"dataset": "small", "target": "label", "task": "classification", "layers": [16], "epochs": 5}
        for clients, requests, goal in ((1, self.pick(600, 100), 0.6), (32, self.pick(25, 5), 1.0)):
            with Daemon(self, self.fresh(), "--workers", "1", "--threads", "1") as daemon:
                self.finished_job(daemon)
                daemon.upload("wide", self.float_csv(2, columns=64, rows=5000))
                busy = daemon.submit(  # long epochs: few metrics, so that the store has nothing else to do
                    {"dataset": "wide", "target": "label", "task": "classification", "layers": [1024, 1024], "epochs": 10000}
                )
                daemon.until_trains(busy)
                took = self.load(daemon.port, clients, requests, 0, "POST", "/v1/jobs", json.dumps(spec))
                if took["refused"]:
                    sys.exit("submissions were refused")
            self.report(
                f"submissions_{clients}_client{'s' if clients > 1 else ''}",
                took["per_second"],
                "jobs/s",
                goal,
                bare=bare,
                p99_ms=took["p99_ms"],
            )


MEASURES = ("idle", "uploads", "idx", "polls", "training_polls", "checkpoints", "large_database", "store", "submissions")


def table(rows):
    print(f"\n{'measure':28} {'value':>12} {'unit':12} {'bare':>12} {'ratio':>7} {'goal':>7}  met")
    for row in rows:
        bare, ratio, goal = (("" if row[key] is None else f"{row[key]:g}") for key in ("bare", "ratio", "goal"))
        met = {True: "yes", False: "NO", None: ""}[row["met"]]
        print(f"{row['measure']:28} {row['value']:12g} {row['unit']:12} {bare:>12} {ratio:>7} {goal:>7}  {met}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build", help="directory with the executables (default: build)")
    parser.add_argument("--out", help="file for the lines of JSON (default: BUILD/bench/service.jsonl)")
    parser.add_argument("--work", help="directory on the disk that is meant (default: that of temporary files)")
    parser.add_argument("--only", help=f"some of the measures, with commas: {','.join(MEASURES)}")
    parser.add_argument("--quick", action="store_true", help="small and short: whether it runs at all")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else MEASURES
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        parser.error(f"unknown measure {unknown[0]}; there are {', '.join(MEASURES)}")
    bench = Bench(options)
    try:
        for name in names:
            getattr(bench, name)()
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    out = pathlib.Path(options.out or bench.build / "bench" / "service.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row) + "\n" for row in bench.rows))
    table(bench.rows)


if __name__ == "__main__":
    main()
