"""The first promise: the same spec, data and seed give the same parameter bytes, for any number of threads and any
instruction set, across pauses, and for every compiler: the hashes below are constants."""

import pytest

from conftest import Daemon
from smooth import SPECS, fingerprint, lasting, table

# SHA-256 of the tensor bytes of the weights that the jobs below end with. They change with numerics_version only.
GOLDEN = {
    "classes": "4056b24a3c114b79f10f3d044547a64ae97ad1ed5bf7f1828dde1e01144038a5",
    "values": "8a0eab367ed6d6c3dd210c04a3f7c49f3fd53eb88d114e84ae7dedb949db815b",
    "sequences": "e7e9099aea19695a9995a987b5ebba1ae5b043c7ac73e55173f8ea4e0e82ff2a",
}

THREADS = [1, 2, 3, 5, 8]


@pytest.fixture
def start(tmp_path):
    """Starts daemons with the table uploaded; ends them."""
    started = []

    def start(*options, **environment):
        daemon = Daemon(tmp_path / f"data{len(started)}", *options, env=environment).start()
        started.append(daemon)
        daemon.upload("smooth", table())
        return daemon

    yield start
    for daemon in started:
        if daemon.running:
            assert daemon.stop() == 0


@pytest.mark.parametrize("name", SPECS)
def test_any_number_of_threads(start, name):
    daemon = start("--threads", "8", "--workers", "1")
    found = {n: fingerprint(daemon, daemon.train({**SPECS[name], "threads": n})["id"]) for n in THREADS}
    assert found == {n: GOLDEN[name] for n in THREADS}


@pytest.mark.parametrize("simd", ["generic", "avx2", "avx512", "neon"])
def test_any_instruction_set(start, simd):
    try:
        daemon = start("--threads", "2", BACKPROPD_SIMD=simd)
    except AssertionError:
        pytest.skip(f"this CPU has no {simd}")
    assert daemon.get("/version").json()["simd"] == simd
    found = {name: fingerprint(daemon, daemon.train(SPECS[name])["id"]) for name in SPECS}
    assert found == GOLDEN


def test_without_the_fma_variants_of_the_c_library(start):
    """glibc chooses other versions of its functions on a CPU without FMA; none of them may reach a parameter."""
    daemon = start("--threads", "2", GLIBC_TUNABLES="glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F,-AVX2_Usable,-FMA_Usable")
    found = {name: fingerprint(daemon, daemon.train(SPECS[name])["id"]) for name in SPECS}
    assert found == GOLDEN


def test_the_series_of_metrics_too(start):
    """What is shown of two runs is equal to the last digit, not only what is kept."""
    daemon = start("--threads", "3", "--workers", "1")
    one, two = (daemon.train({**SPECS["classes"], "threads": n})["id"] for n in (1, 3))
    assert daemon.get(f"/v1/jobs/{one}/metrics").json() == daemon.get(f"/v1/jobs/{two}/metrics").json()


@pytest.mark.parametrize("name", ["classes", "sequences"])
def test_pause_and_resume_with_other_threads(start, name):
    """Paused in the middle, resumed by a daemon with another number of threads: the bytes of an undisturbed run."""
    daemon = start("--threads", "3")
    spec = lasting(daemon, name, 2)
    undisturbed = fingerprint(daemon, daemon.train({**spec, "threads": 3})["id"], "latest")

    job, pauses = daemon.submit({**spec, "threads": 1})["id"], 0
    for threads in (2, 5, 1):
        daemon.wait(job, lambda j: j["progress"]["step"] > 0 and j["status"] == "running" or j["status"] == "succeeded")
        assert daemon.post(f"/v1/jobs/{job}/pause").status_code in (200, 409)
        paused = daemon.wait(job, lambda j: j["status"] in ("paused", "succeeded"))
        assert daemon.stop() == 0
        daemon.options = ("--threads", str(threads))
        daemon.start()
        if paused["status"] == "paused":
            pauses += 1
            assert daemon.job(job)["progress"]["step"] == paused["progress"]["step"]
            assert daemon.post(f"/v1/jobs/{job}/resume").status_code == 200
    assert daemon.wait(job)["status"] == "succeeded" and pauses > 0
    assert fingerprint(daemon, job, "latest") == undisturbed


def test_another_seed_gives_other_bytes(start):
    """The comparison can fail."""
    daemon = start()
    assert fingerprint(daemon, daemon.train({**SPECS["classes"], "seed": 12})["id"]) != GOLDEN["classes"]
