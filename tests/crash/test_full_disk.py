"""A start on a full disk: it serves what there is, and goes on once there is room. Needs a small file system of its own,
which only root may mount."""

import os
import subprocess

import pytest

from conftest import Daemon
from smooth import SPECS, table

LONG = {**SPECS["classes"], "training": {"epochs": 1_000_000, "batch_size": 100}}
FULL = "the disk is full: jobs that were in the middle"


class Disk:
    """A file system in memory, and a file that fills it."""

    def __init__(self, path):
        self.path, self.filler = path, path / "filler"

    def fill(self):
        with open(self.filler, "ab", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(4096))
            except OSError:
                pass
        assert os.statvfs(self.path).f_bavail == 0

    def empty(self):
        self.filler.unlink()


def without_reserve(data_dir):
    """Takes away what the daemon keeps for this case: the ballast, and the end of the log that nothing was written to."""
    (data_dir / "ballast").unlink()
    log, header, frame = data_dir / "backpropd.db-wal", 32, 24 + 8192
    used = len(log.read_bytes().rstrip(b"\0"))
    os.truncate(log, header + -(-(used - header) // frame) * frame)


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system can be mounted by root only")
    yield Disk(path)
    subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def killed(disk):
    """A daemon that was killed while a job was training."""
    daemon = Daemon(disk.path / "data", "--threads", "1", "--workers", "2")
    daemon.log_path = disk.path.with_name("daemon.log")  # not on the disk that will be full
    daemon.start()
    daemon.upload("smooth", table())
    daemon.victim = daemon.submit({**LONG, "training": {**LONG["training"], "checkpoint": {"every_seconds": 1}}})["id"]
    daemon.wait(daemon.victim, lambda j: j["checkpoints"]["latest"])
    daemon.kill()
    yield daemon
    if daemon.running:
        daemon.kill()


def goes_on(daemon):
    daemon.wait(daemon.victim, lambda j: j["status"] == "running" and j["restarts"] == 1 and j["progress"]["step"] > 0)
    assert daemon.post(f"/v1/jobs/{daemon.victim}/cancel").status_code == 200
    assert daemon.wait(daemon.victim)["status"] == "cancelled"
    assert daemon.stop() == 0


def test_the_ballast_makes_room_for_a_start(disk, killed):
    disk.fill()
    assert (killed.data_dir / "ballast").exists()
    killed.start()
    assert not (killed.data_dir / "ballast").exists() and FULL not in killed.log()
    disk.empty()
    goes_on(killed)


def test_without_any_room_it_serves_and_waits(disk, killed, problem):
    without_reserve(killed.data_dir)
    disk.fill()
    killed.start()
    assert FULL in killed.log() and str(killed.data_dir) in killed.log()
    left = killed.job(killed.victim)
    assert left["status"] == "running" and left["restarts"] == 0  # as it was left: nobody has it
    assert killed.get("/readyz").status_code == 200
    assert killed.get(f"/v1/jobs/{killed.victim}/weights.safetensors").status_code == 200
    assert killed.post("/v1/jobs", json=LONG) == problem(507, "disk_full")
    assert killed.put("/v1/datasets/more", data=table()) == problem(507, "disk_full")
    disk.empty()
    goes_on(killed)
    assert "there is room again" in killed.log()


def test_what_a_start_cannot_do_without(disk, killed):
    """A database that was brought here without the index of its log: that cannot be made without room."""
    killed.start()
    assert killed.stop() == 0
    (killed.data_dir / "ballast").unlink()
    (killed.data_dir / "backpropd.db-shm").unlink()
    disk.fill()
    with pytest.raises(AssertionError, match="exit code 74"):
        killed.start()
    assert f"{killed.data_dir}/backpropd.db: " in killed.log() and "a start takes 1048576: make room" in killed.log()
    disk.empty()
    killed.start()
    assert killed.stop() == 0
