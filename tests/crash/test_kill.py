"""The second promise: kill -9 at any instant loses nothing that was acknowledged, and a job that was running goes on by
itself and ends with the bytes that it would have had.

BACKPROPD_KILLS sets how many times the daemon is killed (20)."""

import os
import random
import time

from conftest import Daemon
from smooth import SPECS, fingerprint, lasting, table

KILLS = int(os.environ.get("BACKPROPD_KILLS", "20"))
SEED = int(os.environ.get("BACKPROPD_KILL_SEED", str(random.randrange(1 << 30))))


def long_spec(daemon, seconds):
    return lasting(daemon, "classes", seconds, checkpoint={"every_epochs": 1, "every_seconds": 1})


def test_killed_again_and_again(tmp_path):
    print(f"BACKPROPD_KILL_SEED={SEED}")
    rng = random.Random(SEED)
    daemon = Daemon(tmp_path / "data", "--threads", "2", "--workers", "2").start()
    daemon.upload("smooth", table())
    spec = long_spec(daemon, 0.9 * KILLS)
    undisturbed = daemon.wait(daemon.submit(spec)["id"], patience=40 * KILLS)
    expected = fingerprint(daemon, undisturbed["id"], "latest")

    acknowledged = [daemon.submit(spec)["id"]]
    victim, kills = acknowledged[0], 0
    while kills < KILLS:
        until = time.monotonic() + rng.uniform(0.05, 2.2)
        while time.monotonic() < until:  # something to lose: small jobs, each acknowledged with 201
            acknowledged.append(daemon.submit({**SPECS["values"], "name": f"small-{len(acknowledged)}"})["id"])
            time.sleep(0.2)
        daemon.kill()
        kills += 1
        daemon.options = ("--threads", str(rng.choice([1, 2, 3])), "--workers", "2")
        daemon.start()
        there = {job: daemon.job(job)["status"] for job in acknowledged}
        assert there[victim] in ("queued", "running", "succeeded")
        assert not set(there.values()) & {"failed", "cancelled", "paused"}, there

    ended = daemon.wait(victim, patience=40 * KILLS)
    assert ended["status"] == "succeeded"
    assert fingerprint(daemon, victim, "latest") == expected
    assert daemon.get(f"/v1/jobs/{victim}/metrics?names=loss,val_loss").json() == \
        daemon.get(f"/v1/jobs/{undisturbed['id']}/metrics?names=loss,val_loss").json()
    assert ended["restarts"] >= 1
    for job in acknowledged[1:]:
        assert daemon.wait(job, patience=600)["status"] == "succeeded"
    assert daemon.stop() == 0


def test_a_clean_stop_loses_no_step(tmp_path):
    """SIGTERM in the middle: the checkpoint is of the very step at which it stopped, and it is no crash."""
    daemon = Daemon(tmp_path / "data").start()
    daemon.upload("smooth", table())
    job = daemon.submit(long_spec(daemon, 6))["id"]
    daemon.wait(job, lambda j: j["progress"]["step"] > 100)
    before = daemon.job(job)["progress"]["step"]
    assert daemon.stop() == 0
    daemon.start()
    after = daemon.job(job)
    assert after["restarts"] == 0
    assert after["progress"]["step"] >= before
    assert daemon.wait(job)["status"] == "succeeded"
    assert daemon.stop() == 0
