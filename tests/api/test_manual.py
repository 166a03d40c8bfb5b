"""The manual page knows every option that --help knows, and no other."""

import pathlib
import re
import subprocess

from conftest import EXECUTABLE

PAGE = pathlib.Path(__file__).resolve().parents[2] / "server" / "backpropd.1"


def test_the_options():
    said = subprocess.run([EXECUTABLE, "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout
    options = set(re.findall(r"^  (--[a-z-]+)", said, re.M))
    written = {o for line in PAGE.read_text().splitlines() if line.startswith((".B", ".BI"))
               for o in re.findall(r"--[a-z-]+", line.replace("\\-", "-"))}
    assert written == options
