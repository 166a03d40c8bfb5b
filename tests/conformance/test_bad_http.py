"""Requests that are wrong before their content matters: framing, headers, paths, queries, methods, ranges, and clients
that dawdle or go away. Each is refused with the promised status, changes nothing, and the daemon lives on."""

import os
import re
import socket
import time

import pytest

from conftest import ROOT
from data import flowers
from refusals import HOST, Answer, check_problem, dial, files, inventory, raw, refused

NEXT = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"  # must never be read as a request after a framing error
POST = b"POST /v1/jobs HTTP/1.1\r\n" + HOST


@pytest.fixture(scope="module")
def there(daemon):
    """A daemon with something to lose."""
    daemon.upload("flowers", flowers())
    daemon.train({"dataset": "flowers", "target": "species", "layers": [4], "epochs": 2})
    return daemon


@pytest.fixture(autouse=True)
def nothing_changes(there):
    before = inventory(there)
    yield
    assert there.running
    assert inventory(there) == before


# id: (request, status or None for a connection that is just closed, our code or None where the library answers itself)
FRAMING = {
    "tls hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(64)) + b"\r\n\r\n", None, None),
    "http 0.9": (b"GET /v1/jobs\r\n\r\n", None, None),
    "http 2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505, None),
    "http 9.9": (b"GET / HTTP/9.9\r\n" + HOST + b"\r\n", 505, None),
    "no host": (b"GET /v1/jobs HTTP/1.1\r\n\r\n", 400, None),
    "two hosts": (b"GET /v1/jobs HTTP/1.1\r\n" + HOST + HOST + b"\r\n", 400, "duplicate_header"),
    "two tokens": (b"GET /v1/jobs HTTP/1.1\r\n" + HOST + 2 * b"Authorization: Bearer x\r\n" + b"\r\n", 400,
                   "duplicate_header"),
    "header without colon": (b"GET /v1/jobs HTTP/1.1\r\n" + HOST + b"Content-Length 3\r\n\r\n", 400, None),
    "space before colon": (POST + b"Content-Length : 3\r\n\r\nabc" + NEXT, 400, "bad_header"),
    "bare cr in a value": (b"GET /v1/jobs HTTP/1.1\r\n" + HOST + b"X-A: a\rb\r\n\r\n", 400, None),
    "control character in a value": (b"GET /v1/jobs HTTP/1.1\r\n" + HOST + b"X-A: a\x01b\r\n\r\n", 400, "bad_header"),
    "chunked and a length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + NEXT, 400,
                             "ambiguous_framing"),
    "length and chunked": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + NEXT, 400,
                           "ambiguous_framing"),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + NEXT, 400,
                      "bad_transfer_encoding"),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n" + NEXT, 400, "bad_transfer_encoding"),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + NEXT, 400, "bad_transfer_encoding"),
    "two equal lengths": (POST + 2 * b"Content-Length: 3\r\n" + b"\r\nabc" + NEXT, 400, "ambiguous_framing"),
    "two different lengths": (POST + b"Content-Length: 3\r\nContent-Length: 30\r\n\r\nabc" + NEXT, 400,
                              "ambiguous_framing"),
    "list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc" + NEXT, 400, None),
    "signed length": (POST + b"Content-Length: +3\r\n\r\nabc" + NEXT, 400, None),
    "negative length": (POST + b"Content-Length: -1\r\n\r\nabc" + NEXT, 400, None),
    "hexadecimal length": (POST + b"Content-Length: 0x3\r\n\r\nabc" + NEXT, 400, None),
    "length of 2^64": (POST + b"Content-Length: 18446744073709551616\r\n\r\nabc" + NEXT, 413, None),
    "length of 2^64-1": (POST + b"Content-Length: 18446744073709551615\r\n\r\nabc" + NEXT, (400, 413), None),
    "length of 2^63-1": (POST + b"Content-Length: 9223372036854775807\r\n\r\nabc" + NEXT, 413, None),
    "negative chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n" + NEXT, 400, None),
    "0x chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n" + NEXT, 400, None),
    "giant chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n" + NEXT,
                    (400, 413), None),
    "small l in http": (b"GET / http/1.1\r\n" + HOST + b"\r\n", 400, None),
    "tabs for blanks": (b"GET\t/healthz\tHTTP/1.1\r\n" + HOST + b"\r\n", None, None),
    "blank in the target": (b"GET /v1/jobs x HTTP/1.1\r\n" + HOST + b"\r\n", None, None),
    "nul in a header's name": (b"GET / HTTP/1.1\r\n" + HOST + b"X\x00Y: a\r\n\r\n", 400, None),
    # The library answers this one, and calls it 500; there is no way to it from outside.
    "chunk extension of 60 kB": (POST + b"Transfer-Encoding: chunked\r\n\r\n3;" + 60_000 * b"a" +
                                 b"\r\nabc\r\n0\r\n\r\n", (400, 413, 431, 500), None),
    "trailer of 60 kB": (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + 60_000 * b"a" + b"\r\n\r\n", 431,
                         None),
    "header of 40 kB": (b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + 40_000 * b"a" + b"\r\n\r\n", 431, None),
    "2000 headers": (b"GET / HTTP/1.1\r\n" + HOST + b"".join(b"X-%d: a\r\n" % i for i in range(2000)) + b"\r\n", 431,
                     None),
    "target of 40 kB": (b"GET /" + 40_000 * b"a" + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, None),
    "host of another site": (b"GET /v1/jobs HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, "host_not_allowed"),
    "method unknown": (b"BREW /v1/jobs HTTP/1.1\r\n" + HOST + b"\r\n", 501, "method_unknown"),
    "method in small letters": (b"get /v1/jobs HTTP/1.1\r\n" + HOST + b"\r\n", 501, "method_unknown"),
}


@pytest.mark.parametrize("name", FRAMING)
def test_framing(there, name):
    """Refused, and the connection closed, so that what follows is not taken for the next request."""
    request, status, code = FRAMING[name]
    answer = raw(there, request)
    assert answer.closed
    assert b"HTTP/1.1 200" not in answer.data
    if status is None:
        assert answer.status in (None, 400, 505)
    else:
        assert answer.status in (status if isinstance(status, tuple) else (status,)), answer.data
    if code:
        assert answer.count == 1, answer.data
        check_problem(there, answer.headers, answer.body, answer.status, code)


@pytest.mark.parametrize("request_bytes", [
    b"GET /v1/jobs HTTP/1.1\r\n" + HOST + b"X-A: a\r\n b\r\n\r\n",  # folded: joined, without a meaning here
    b"GET /v1/jobs HTTP/1.1\r\n" + HOST + b"X-A: a\x00b\r\n\r\n",  # a NUL: cut there, likewise
], ids=["folded header", "nul in a value"])
def test_harmless_oddities(there, request_bytes):
    """The library hides these from us; they have no meaning for framing, and one request gets one answer."""
    answer = raw(there, request_bytes)
    assert answer.status in (200, 400) and answer.count == 1


PATHS = {
    "dot dot": ("/v1/jobs/../../etc/passwd", 404, None),
    "encoded dots": ("/v1/%2e%2e/jobs", 404, None),
    "encoded dots and slash": ("/v1/jobs/%2e%2e%2f%2e%2e%2fetc", 400, "bad_path"),
    "encoded twice": ("/v1/%252e%252e/jobs", 404, None),
    "encoded backslash": ("/v1/jobs/..%5c..%5cetc", 400, "bad_path"),
    "parameters": ("/v1/jobs/x;/../y", 404, None),
    "nul": ("/v1/jobs/a%00b", 400, "bad_path"),
    "control character": ("/v1/jobs/a%0ab", 400, "bad_path"),
    "not utf-8": ("/v1/jobs/%ff", 400, "bad_path"),
    "broken escape": ("/v1/jobs/%zz", 400, "bad_path"),
    "empty segments": ("//v1//jobs", 404, None),
    "trailing slash": ("/v1/jobs/", 404, None),
    "capital letters": ("/V1/jobs", 404, None),
    "absolute form": ("http://127.0.0.1/v1/jobs", 400, "bad_path"),
    "asterisk": ("*", 400, "bad_path"),
    "target of 9 kB": ("/v1/jobs/" + 9000 * "a", 414, "target_too_long"),
    "job id in capitals": ("/v1/jobs/JOB_01ARZ3NDEKTSV4RRFFQ69G5FAV", 404, "not_found"),
    "job id too long": ("/v1/jobs/job_" + 27 * "a", 404, "not_found"),
    "job id of letters from elsewhere": ("/v1/jobs/%E2%82%AC", 404, "not_found"),
    "job id of html": ("/v1/jobs/%3Cscript%3E", 404, "not_found"),
    "dataset that is not there": ("/v1/datasets/nothing", 404, "not_found"),
    "dataset with a wrong name": ("/v1/datasets/Nothing%20Here", 404, "not_found"),
    "problem that is none": ("/problems/nothing", 404, "not_found"),
}


@pytest.mark.parametrize("name", PATHS)
def test_path(there, name):
    target, status, code = PATHS[name]
    answer = raw(there, b"GET " + target.encode() + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert answer.status == status
    problem = check_problem(there, answer.headers, answer.body, status, code or "no_such_path")
    assert "<script>" not in problem["detail"] and "etc" not in problem["detail"]


def test_every_problem_has_a_page(there):
    """What a handler may answer with: its code, and the status that the page says."""
    codes = set()
    for source in (ROOT / "server").rglob("*.c"):
        codes |= set(re.findall(r'bp_problem\([^,"]+, (\d+), "(\w+)"', source.read_text()))
    assert len(codes) > 30
    for status, code in codes:
        page = there.get(f"/problems/{code}")
        assert page.status_code == 200, code
    pages = re.findall(r'\{(\d+), "(\w+)"', (ROOT / "server/api/problem_page.c").read_text())
    assert codes <= set(pages) and len(pages) == len(set(pages))


QUERIES = {
    "unknown key": ("/v1/jobs?stauts=queued", "did you mean status"),
    "key twice": ("/v1/jobs?limit=1&limit=2", ""),
    "not utf-8": ("/v1/jobs?name=%ff", ""),
    "limit below": ("/v1/jobs?limit=-1", "from 1 to 1000"),
    "limit zero": ("/v1/jobs?limit=0", "from 1 to 1000"),
    "limit above": ("/v1/datasets?limit=1001", "from 1 to 1000"),
    "limit in exponent form": ("/v1/jobs?limit=1e9", "from 1 to 1000"),
    "limit hexadecimal": ("/v1/jobs?limit=0x10", "from 1 to 1000"),
    "limit empty": ("/v1/datasets?limit=", "from 1 to 1000"),
    "limit of rows": ("/v1/datasets/flowers/rows?limit=100000000", "from 1 to 1000"),
    "status that is none": ("/v1/jobs?status=done", ""),
    "order that is none": ("/v1/jobs?order=sideways", ""),
    "wait below": ("/v1/jobs/{job}?wait=-1", "from 0 to"),
    "rendering that is none": ("/v1/jobs?render=xml", ""),
    "any key where there are none": ("/healthz?x=1", ""),
    "max_points of zero": ("/v1/jobs/{job}/metrics?max_points=0", ""),
    "weights of an unknown format": ("/v1/jobs/{job}/weights?format=pickle", ""),
}


@pytest.mark.parametrize("name", QUERIES)
def test_query(there, name):
    path, word = QUERIES[name]
    job = there.get("/v1/jobs").json()["data"][0]["id"]
    reply = there.get(path.format(job=job))
    refused(there, reply, 400, reply.json()["code"], word=word)
    assert reply.json()["code"] in ("bad_query", "invalid_query")


@pytest.mark.parametrize("path", ["/v1/jobs?after=garbage", "/v1/jobs?after=job_00000000000000000000000000"])
def test_cursor_that_no_list_gave(there, path):
    refused(there, there.get(path), 400, "bad_cursor")


@pytest.mark.parametrize("method,path,allow", [
    ("PUT", "/v1/jobs", "GET, HEAD, POST"), ("DELETE", "/v1/jobs", "GET, HEAD, POST"),
    ("POST", "/healthz", "GET, HEAD"), ("OPTIONS", "/v1/datasets", "GET, HEAD, POST"),
    ("PATCH", "/v1/datasets/flowers", "DELETE, GET, HEAD, PUT")])
def test_method_that_the_path_has_not(there, method, path, allow):
    reply = there.request(method, path)
    refused(there, reply, 405, "method_not_allowed")
    assert sorted(reply.headers["Allow"].split(", ")) == sorted(allow.split(", "))


@pytest.mark.parametrize("headers,status,code", [
    ({"Content-Encoding": "gzip"}, 415, "encoding_unsupported"),
    ({"Expect": "200-ok"}, 417, "expectation_failed"),
    ({"Origin": "https://evil.example"}, 403, "origin_not_allowed"),
    ({"Origin": "null"}, 403, "origin_not_allowed"),
    ({"Host": "evil.example:8080"}, 403, "host_not_allowed"),
    ({"Host": "localhost.evil.example"}, 403, "host_not_allowed"),
    ({"Idempotency-Key": ""}, 400, "bad_header"),
    ({"Idempotency-Key": 201 * "k"}, 400, "bad_header"),
], ids=["content encoding", "expectation", "origin", "origin null", "host", "host that begins like ours", "empty key",
        "long key"])
def test_headers_of_a_submission(there, headers, status, code):
    spec = {"dataset": "flowers", "target": "species", "layers": [4]}
    reply = there.post("/v1/jobs", json=spec, headers=headers)
    refused(there, reply, status, code)
    assert not [h for h in reply.headers if h.lower().startswith("access-control")]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded",
                                          "application/json; charset=latin1"])
def test_content_type_is_not_what_counts(there, content_type):
    """curl sends its own Content-Type, or none: the body decides."""
    headers = {"Content-Type": content_type} if content_type else {}
    reply = there.post("/v1/jobs?dry_run=true", data=b'{"dataset":"flowers","target":"species","layers":[4]}',
                       headers=headers)
    assert reply.status_code == 200, reply.text


def test_body_of_a_get(there):
    refused(there, there.get("/v1/jobs", data=b"{}"), 400, "body_unexpected")


def test_spec_too_large_is_refused_before_it_is_sent(there):
    """A client that waits for 100-continue is told at once, and sends nothing."""
    answer = raw(there, POST + b"Content-Length: 1048577\r\nExpect: 100-continue\r\n\r\n")
    assert answer.status == 413 and answer.closed and b"100 Continue" not in answer.data
    assert check_problem(there, answer.headers, answer.body, 413, "body_too_large")["limit"] == 1 << 20


def test_chunked_spec_over_its_limit(there):
    chunk = b"10000\r\n" + 65536 * b" " + b"\r\n"
    answer = raw(there, POST + b"Transfer-Encoding: chunked\r\n\r\n" + 18 * chunk + b"0\r\n\r\n")
    assert answer.status == 413 and answer.closed
    assert check_problem(there, answer.headers, answer.body, 413, "body_too_large")["limit"] == 1 << 20


def test_chunked_spec_without_an_end(there):
    """Nobody reads for ever from a client that goes on sending: after a bounded rest the connection is cut."""
    chunk = b"10000\r\n" + 65536 * b" " + b"\r\n"
    answer = raw(there, POST + b"Transfer-Encoding: chunked\r\n\r\n" + 200 * chunk)
    assert answer.closed and answer.status in (None, 413)


@pytest.mark.parametrize("header,status", [
    ("bytes=999999999-", 416), ("bytes=5-2", 416), ("bytes=-0", 416), ("bytes=" + ",".join(100 * ["0-1"]), 200),
    ("lines=1-2", 200), ("bytes=a-b", 200)], ids=["beyond", "backwards", "last none", "100 ranges", "unit", "letters"])
def test_range_of_weights(there, header, status):
    job = there.get("/v1/jobs").json()["data"][0]["id"]
    whole = there.get(f"/v1/jobs/{job}/weights.safetensors")
    reply = there.get(f"/v1/jobs/{job}/weights.safetensors", headers={"Range": header})
    assert reply.status_code == status
    if status == 416:
        refused(there, reply, 416, "range_outside")
        assert reply.headers["Content-Range"] == f"bytes */{len(whole.content)}"
    else:
        assert reply.content == whole.content


@pytest.mark.parametrize("accept", ["image/png", "application/json;q=0", "text/csv"])
def test_renderings_that_a_list_has_not(there, accept):
    refused(there, there.get("/v1/jobs", headers={"Accept": accept}), 406, "not_acceptable")


def test_a_body_that_ends_too_early(there):
    """The client promises more than it sends and goes away: the file of the upload goes with it."""
    s = dial(there)
    s.sendall(b"PUT /v1/datasets/half HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\na,b\n1,2\n")
    deadline = time.monotonic() + 10
    while not [f for f in files(there) if f.startswith("tmp/")] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [f for f in files(there) if f.startswith("tmp/")]
    s.shutdown(socket.SHUT_RDWR)
    s.close()
    while [f for f in files(there) if f.startswith("tmp/")] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert there.get("/v1/datasets/half").status_code == 404


def drip(daemon, begin, patience):
    """One byte every 0.2 s: the seconds until the server has had enough."""
    began = time.monotonic()
    with dial(daemon) as s:
        s.sendall(begin)
        s.settimeout(0.2)
        while time.monotonic() - began < patience:
            try:
                if not s.recv(4096):
                    break
            except socket.timeout:
                pass
            except OSError:
                break
            try:
                s.sendall(b"a")
            except OSError:
                break
    return time.monotonic() - began


def test_headers_byte_by_byte(there):
    assert 5 < drip(there, b"GET / HTTP/1.1\r\n" + HOST + b"X-A: ", 40) < 20


def test_body_byte_by_byte(there):
    begin = b"PUT /v1/datasets/slow HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n"
    assert 5 < drip(there, begin, 40) < 20
    deadline = time.monotonic() + 5
    while [f for f in files(there) if f.startswith("tmp/")] and time.monotonic() < deadline:
        time.sleep(0.01)


def test_clients_that_go_away_leave_nothing_open(there):
    """In the middle of a download, of a header, of a list: no more descriptors are open than before."""
    job = there.get("/v1/jobs").json()["data"][0]["id"]

    def count():
        return len(os.listdir(f"/proc/{there.process.pid}/fd"))
    there.get("/healthz")
    before = count()
    for request in (b"GET /v1/jobs/%s/weights.safetensors HTTP/1.1\r\n" % job.encode() + HOST + b"\r\n",
                    b"GET /v1/jobs HTTP/1.1\r\nHo", b"GET /v1/jobs?render=text HTTP/1.1\r\n" + HOST + b"\r\n"):
        for _ in range(200):
            s = dial(there)
            s.sendall(request)
            s.close()
    deadline = time.monotonic() + 20
    while count() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count() <= before


def test_every_reply_has_an_id(there):
    ids = [there.get(p).headers["X-Request-Id"] for p in ("/", "/healthz", "/v1/jobs", "/nothing", "/v1/jobs?x=1")]
    assert len(set(ids)) == 5 and all(i.startswith("req_") for i in ids)
