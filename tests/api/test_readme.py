"""Every command of the README's curl session runs as it stands there, and says what the README says."""

import json
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_curl_session(daemon, tmp_path):
    text = (ROOT / "README.md").read_text()
    session, mistake = re.findall(r"```sh\n(.*?)```", text, re.S)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")

    def run(script):
        script = script.replace("http://127.0.0.1:8080", daemon.url).replace("curl ", "curl -sS ")
        return subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, check=True,
                              stdout=subprocess.PIPE, text=True).stdout

    said = run(session)
    job = json.loads((tmp_path / "job.json").read_text())
    assert job["status"] == "succeeded" and job["metrics"]["last"]["val_accuracy"] > 0.95
    assert "name,epoch,step,value\nval_accuracy," in said
    assert list(tmp_path.glob("*.safetensors"))
    arms = re.findall(r'"label":"?(\w+)', said)
    assert len(set(arms)) == 2, said

    refusal = json.loads(run(mistake))
    assert refusal["status"] == 422
    assert {e["pointer"]: e.get("suggestion") for e in refusal["errors"]} == {"/epoch": "epochs", "/layers/1": None}
