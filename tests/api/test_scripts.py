"""The commands of the README, run as they stand there."""

import gzip
import os
import random
import shutil
import subprocess

import pytest

from conftest import EXECUTABLE, ROOT


def run(*command, **env):
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, "TMPDIR": env.pop("tmp", "/tmp"), **env},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    return result.returncode, result.stdout


def test_shell_scripts_are_clean():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    code, out = run("shellcheck", *map(str, sorted((ROOT / "scripts").glob("*.sh"))))
    assert code == 0, out


def test_spirals_are_the_same_everywhere():
    code, out = run("awk", "-f", "scripts/spirals.awk")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 1001 and lines[:2] == ["x,y,arm", "0.08325,0.02366,red"]
    assert sum(line.endswith(",red") for line in lines) == 500
    assert len(run("awk", "-v", "rows=10", "-f", "scripts/spirals.awk")[1].splitlines()) == 11


def test_quickstart_trains_spirals(tmp_path):
    code, out = run("scripts/quickstart.sh", BACKPROPD=EXECUTABLE, tmp=str(tmp_path))
    assert code == 0, out
    assert "succeeded" in out and "weights.safetensors" in out, out
    accuracy = float(out.split("accuracy: ")[1].split()[0])
    assert accuracy > 0.95, out
    assert out.count('"probabilities"') == 2, out


def write_idx(path, rows, dims, byte_of):
    body = bytes(byte_of(i) for i in range(rows * (dims[0] * dims[1] if dims else 1)))
    head = bytes([0, 0, 8, 1 + len(dims)]) + b"".join(n.to_bytes(4, "big") for n in (rows, *dims))
    data = head + body
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def test_quickstart_trains_a_folder_of_digits(tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    for part, rows in (("train", 300), ("t10k", 50)):
        r = random.Random(part)
        labels = [i % 10 for i in range(rows)]
        # a "digit" is a bright band whose height is its label
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", rows, (28, 28),
                  lambda i: r.randrange(40) + (200 if (i % 784) // 28 // 2 == labels[i // 784] else 0))
        write_idx(folder / f"{part}-labels-idx1-ubyte", rows, (), lambda i: labels[i])
    code, out = run("scripts/quickstart.sh", str(folder), BACKPROPD=EXECUTABLE, tmp=str(tmp_path))
    assert code == 0, out
    assert "test accuracy: " in out and "on 50 rows" in out, out
    (folder / "t10k-labels-idx1-ubyte").unlink()
    code, out = run("scripts/quickstart.sh", str(folder), BACKPROPD=EXECUTABLE, tmp=str(tmp_path))
    assert code != 0 and "t10k-labels-idx1-ubyte" in out, out
