"""Every lesson of /learn: its commands run as they stand there, and say what the lesson says."""

import pathlib
import re
import subprocess

import pytest

LESSONS = sorted((pathlib.Path(__file__).resolve().parents[2] / "server" / "web" / "learn").glob("*.txt"))
TOPICS = [lesson.stem[4:] for lesson in LESSONS]


def session(text):
    """The commands of a lesson, each with the lines that it is said to print."""
    commands, said = [], []
    for line in text.splitlines():
        if line.startswith("    $ "):
            commands.append(line[6:])
            said.append([])
        elif line.startswith("    > "):
            commands[-1] += "\n" + line[6:]
        elif line.startswith("    ") and commands:
            said[-1].append(line[4:])
    return list(zip(commands, said))


@pytest.mark.parametrize("topic", TOPICS)
def test_the_session_of_a_lesson(daemon, tmp_path, topic):
    text = daemon.get(f"/learn/{topic}").text
    steps = session(text)
    assert steps, "a lesson has something to try"
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("    "))
    script = "".join(f"{command}\necho '== {i}'\n" for i, (command, _) in enumerate(steps))
    script = script.replace("http://127.0.0.1:8080", daemon.url).replace("curl ", "curl -sS ")
    output = subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True).stdout
    for i, (command, said) in enumerate(steps):
        printed, _, output = output.partition(f"== {i}\n")
        assert [line for line in printed.splitlines() if line.strip()] == said, command


def test_the_list(daemon):
    text = daemon.get("/learn").text
    assert re.findall(r"^  /learn/([\w-]+)", text, re.M) == TOPICS
    for lesson in LESSONS:
        assert lesson.read_text().splitlines()[0] in text
    assert [text.index(chapter) for chapter in ("The ideas", "What goes wrong", "What people get wrong")]


def test_what_the_lessons_are_about(daemon):
    """Each idea, each ill, each misconception."""
    assert set(TOPICS) >= {
        "four-steps", "loss", "error-signal", "chain-rule", "update", "batches-until-convergence", "credit-assignment", "sequences",
        "vanishing-gradients", "exploding-gradients", "bad-initialization", "symmetric-start", "no-derivative",
        "learning-rate", "dead-units", "saturation", "overfitting", "class-imbalance", "target-scale", "not-gradient-descent",
        "nobody-derives-by-hand", "zero-start"}
    for topic in TOPICS:  # links between lessons lead somewhere
        for other in re.findall(r"/learn/([\w-]+)", daemon.get(f"/learn/{topic}").text):
            assert other in TOPICS, (topic, other)


def test_an_unknown_lesson(daemon, problem):
    reply = daemon.get("/learn/vanishing_gradient")
    assert reply == problem(404, "not_found", "did you mean /learn/vanishing-gradients?")
    assert reply.json()["topics"] == TOPICS
    assert daemon.get("/learn/knitting") == problem(404, "not_found")
