"""What every refusal must be like, whatever was refused; and bytes on a socket for what no client library sends."""

import json
import re
import socket
import time

HOST = b"Host: 127.0.0.1\r\n"


def inventory(daemon):
    """All that a client can see, and all files but the database: what a refused request must leave as it was."""
    def listed(path):
        reply = daemon.get(path + "?limit=1000")
        assert reply.status_code == 200, reply.text
        return [{k: item.get(k) for k in ("id", "name", "status", "version", "sha256", "created_at", "rows")}
                for item in reply.json()["data"]]
    return listed("/v1/datasets"), listed("/v1/jobs"), files(daemon)


def files(daemon):
    """The files of datasets, and those of uploads under way."""
    return sorted(str(p.relative_to(daemon.data_dir)) for folder in ("raw", "tables", "tmp")
                  for p in (daemon.data_dir / folder).rglob("*") if p.is_file())


def check_problem(daemon, headers, body, status, code, pointers=None, word=""):
    """A problem as RFC 9457 has it: complete, explained by a page, and without a word about our insides."""
    assert headers["content-type"].startswith("application/problem+json"), headers
    text = body.decode() if isinstance(body, bytes) else body
    problem = json.loads(text)
    assert (problem["status"], problem["code"]) == (status, code), text
    assert problem["type"] == f"/problems/{code}" and problem["title"] and problem["detail"], text
    assert problem["request_id"] == headers["x-request-id"]
    assert word in text, text
    if pointers is not None:
        assert sorted(e["pointer"] for e in problem["errors"]) == sorted(pointers), text
    for fault in problem.get("errors", []):
        assert fault["code"] and fault["detail"], text
    said = text.replace(problem["request_id"], "")  # whose letters are chance: 0x2a9e247a can be among them
    assert str(daemon.data_dir) not in said and "/tmp/" not in said, text
    assert not re.search(r"SELECT |INSERT |sqlite|\.[ch]:\d|0x[0-9a-f]{8}|jansson|JSON_|\(nil\)|nan\b", said), text
    assert len(text) < 65536
    page = daemon.get(problem["type"])
    assert page.status_code == 200 and f"{code} " in page.text, f"no page explains {code}"
    return problem


def refused(daemon, reply, status, code, pointers=None, word=""):
    assert reply.status_code == status, reply.text
    return check_problem(daemon, {k.lower(): v for k, v in reply.headers.items()}, reply.content, status, code,
                         pointers, word)


class Answer:
    """What came back over a socket: status is None when nothing did."""

    def __init__(self, data, closed):
        self.data, self.closed = data, closed
        head, _, self.body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1]) if lines[0].startswith("HTTP/") else None
        self.headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        self.count = len(re.findall(rb"HTTP/1\.1 \d\d\d ", data))

    def complete(self):
        length = self.headers.get("content-length")
        return self.status is not None and self.status >= 200 and length and len(self.body) >= int(length)


def dial(daemon):
    connection = socket.create_connection(("127.0.0.1", int(daemon.url.rsplit(":", 1)[1])), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def raw(daemon, request, patience=20, linger=0.3):
    """Sends bytes as they are, and reads until the server closes, or a whole answer is there and nothing follows it."""
    with dial(daemon) as s:
        try:
            s.sendall(request)
        except OSError:
            pass  # closed on us while we were sending: the answer says why
        data, deadline = b"", time.monotonic() + patience
        while time.monotonic() < deadline:
            s.settimeout(linger if Answer(data, False).complete() else deadline - time.monotonic())
            try:
                piece = s.recv(65536)
            except socket.timeout:
                break
            except OSError:
                return Answer(data, True)
            if not piece:
                return Answer(data, True)
            data += piece
        return Answer(data, False)
