"""Files that are no dataset, or not a usable one: refused with the place of the fault, and nothing stored, not even a
temporary file. And files that look odd, but are not: what is made of them."""

import gzip
import resource
import struct

import pytest
import requests

from conftest import Daemon
from data import flowers
from refusals import HOST, check_problem, files, inventory, raw, refused

ROWS = "p,q,r\n" + "".join(f"{i},{2 * i},{'ab'[i % 2]}\n" for i in range(30))


def idx(kind, *shape, data=None):
    size = {8: 1, 9: 1, 0xb: 2, 0xc: 4, 0xd: 4, 0xe: 8}.get(kind, 1)
    count = 1
    for n in shape:
        count *= n
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + \
        (bytes(i % 10 for i in range(count * size)) if data is None else data)


IMAGES, LABELS = idx(8, 20, 2, 2), idx(8, 20)


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    d = Daemon(tmp_path_factory.mktemp("daemon") / "data", "--max-upload", "4M").start()
    d.upload("there", flowers())
    yield d
    assert d.running and d.stop() == 0, d.log()


@pytest.fixture
def nothing_changes(there):
    before = inventory(there)
    yield
    assert there.running
    assert inventory(there) == before


# id: (file, status, code, line, column, a word that the answer must have)
FILES = {
    "nothing": ("", 422, "empty_dataset", None, None, "curl -T"),
    "only a header": ("a,b,c\n", 422, "empty_dataset", None, None, ""),
    "only blank lines": ("\n\n\n", 422, "empty_dataset", None, None, ""),
    "only a byte order mark": ("\ufeff", 422, "empty_dataset", None, None, ""),
    "row too short": ("a,b\n1,2\n3\n", 400, "ragged_row", 3, None, "2 columns expected, 1 found"),
    "row too long": ("a,b\n1,2\n3,4,5\n", 400, "ragged_row", 3, None, "2 columns expected, 3 found"),
    "ragged after lines in quotes": ('a,b\n"1\n1",2\n3\n', 400, "ragged_row", 4, None, ""),
    "quote never closed": ('a,b\n1,"2\n3,4\n', 400, "unclosed_quote", 2, 2, ""),
    "text after a quote": ('a,b\n1,"2"3\n', 400, "text_after_quote", 2, 2, "doubled"),
    "zero byte": (b"a,b\n1,2\x00\n", 422, "not_utf8", 2, None, ""),
    "latin-1": ("a,b\n1,caf\u00e9\n".encode("latin-1"), 422, "not_utf8", 2, None, "0xe9"),
    "utf-16": (ROWS.encode("utf-16"), 422, "not_utf8", None, None, "UTF-16"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), 422, "not_utf8", 1, None, ""),
    "spreadsheet": (b"PK\x03\x04" + 100 * b"x", 422, "looks_like_xlsx", None, None, "CSV"),
    "old spreadsheet": (b"\xd0\xcf\x11\xe0" + 100 * b"x", 422, "looks_like_xlsx", None, None, "CSV"),
    "rows of json": ('[[1,2],[3,4]]', 422, "unsupported_format", None, None, "CSV"),
    "database": (b"SQLite format 3\x00" + bytes(100), 422, "unsupported_format", None, None, ""),
    "bzip2": (b"BZh91AY&SY" + bytes(50), 422, "unsupported_format", None, None, "gzip"),
    "gzip cut off": (gzip.compress(ROWS.encode())[:-6], 422, "gzip_damaged", None, None, ""),
    "gzip with a wrong sum": (gzip.compress(ROWS.encode())[:-8] + bytes(8), 422, "gzip_damaged", None, None, ""),
    "gzip in gzip": (gzip.compress(gzip.compress(ROWS.encode())), 422, "gzip_in_gzip", None, None, ""),
    "gzip bomb": (gzip.compress(b"a,b\n" + 3_000_000 * b"1,2\n"), 422, "unfolds_too_far", None, None, "4194304"),
    "larger than may be": (b"a,b\n" + 1_200_000 * b"1,2\n", 413, "body_too_large", None, None, '"limit":4194304'),
    "names twice": ("a,b,a\n1,2,3\n", 422, "duplicate_column", None, None, "'a'"),
    "column without a name": ("a,,c\n1,2,3\n", 422, "empty_column_name", None, None, "column 2"),
    "header or data": ("a,b\nc,d\ne,f\n", 422, "ambiguous_header", None, None, "?header="),
    "comma or semicolon": ("1,5;2\n2,5;3\n", 422, "ambiguous_delimiter", None, None, "?delimiter="),
    "newlines stripped by curl -d": (ROWS.replace("\n", ""), 422, "newlines_gone", None, None, "--data-binary"),
    "20000 columns": (",".join(f"c{i}" for i in range(20_000)) + "\n", 422, "too_many_columns", 1, None, "16384"),
    "field of more than 1 MiB": ('a,b\n"' + (1 << 20) * "x" + 'y",2\n', 422, "field_too_long", 2, 1, "1 MiB"),
    "one enormous line": (b"x" * 4_000_000, 422, "field_too_long", 1, 1, ""),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("target", ["new", "there"], ids=["new", "replacing"])
def test_file(there, nothing_changes, name, target):
    body, status, code, line, column, word = FILES[name]
    reply = there.put(f"/v1/datasets/{target}", data=body.encode() if isinstance(body, str) else body)
    problem = refused(there, reply, status, code, word=word)
    assert (problem.get("line"), problem.get("column")) == (line, column), problem


# id: (parts, code, word)
FORMS = {
    "no idx": ({"inputs": b"\0\0\x08", "targets": LABELS}, "idx_magic", "inputs"),
    "type that is none": ({"inputs": b"\0\0\x0a\x03" + IMAGES[4:], "targets": LABELS}, "idx_magic", "0a 03"),
    "no dimensions": ({"inputs": b"\0\0\x08\0" + IMAGES[4:], "targets": LABELS}, "idx_magic", ""),
    "255 dimensions": ({"inputs": b"\0\0\x08\xff" + bytes(2000), "targets": LABELS}, "idx_magic", ""),
    "dimensions whose product overflows": ({"inputs": idx(8, 2**32 - 1, 2**32 - 1, 2**32 - 1, data=b"abc"),
                                            "targets": LABELS}, "idx_dimensions", ""),
    "header cut off": ({"inputs": IMAGES[:10], "targets": LABELS}, "idx_length", ""),
    "one byte short": ({"inputs": IMAGES[:-1], "targets": LABELS}, "idx_length", ""),
    "one byte long": ({"inputs": IMAGES + b"x", "targets": LABELS}, "idx_length", ""),
    "no rows": ({"inputs": idx(8, 0, 2, 2), "targets": idx(8, 0)}, "empty_dataset", ""),
    "side of no length": ({"inputs": idx(8, 20, 0, 2), "targets": LABELS}, "idx_dimensions", ""),
    "more inputs than targets": ({"inputs": IMAGES, "targets": idx(8, 19)}, "count_mismatch", "19"),
    "test rows of another shape": ({"inputs": IMAGES, "targets": LABELS, "test_inputs": idx(8, 2, 3, 2),
                                    "test_targets": idx(8, 2)}, "shape_mismatch", ""),
    "test inputs without targets": ({"inputs": IMAGES, "targets": LABELS, "test_inputs": IMAGES}, "missing_part",
                                    "test_targets"),
    "csv as inputs": ({"inputs": ROWS.encode(), "targets": LABELS}, "idx_magic", "CSV"),
    "part that is none": ({"inputs": IMAGES, "targets": LABELS, "labels": LABELS}, "unknown_part", "labels"),
    "data beside inputs": ({"data": ROWS.encode(), "inputs": IMAGES}, "unknown_part", ""),
    "no file": ({}, "missing_part", "-F"),
    "infinite value": ({"inputs": idx(0xd, 2, 1, data=struct.pack(">2f", 1, float("inf"))), "targets": idx(8, 2)},
                       "infinite_value", ""),
    "gzip bomb": ({"inputs": gzip.compress(idx(8, 20, 300_000, data=bytes(6_000_000))), "targets": LABELS},
                  "unfolds_too_far", ""),
}


@pytest.mark.parametrize("name", FORMS)
def test_form(there, nothing_changes, name):
    parts, code, word = FORMS[name]
    reply = there.post("/v1/datasets", files={"name": (None, "new"), **{k: (k, v) for k, v in parts.items()}})
    refused(there, reply, 422, code, word=word)


def test_form_without_a_name(there, nothing_changes):
    refused(there, there.post("/v1/datasets", files={"data": ("x", ROWS)}), 422, "missing_part", word="name")


def test_file_sent_as_text(there, nothing_changes):
    reply = there.post("/v1/datasets", files={"name": (None, "new"), "data": (None, ROWS)})
    refused(there, reply, 422, "unknown_part", word="@FILE")


def test_same_part_twice(there, nothing_changes):
    reply = there.post("/v1/datasets", files=[("name", (None, "new")), ("data", ("x", ROWS)), ("data", ("y", ROWS))])
    refused(there, reply, 400, "bad_form")


def test_a_form_of_too_many_parts(there, nothing_changes):
    parts = [("name", (None, "new"))] + [(f"p{i}", ("x", "1")) for i in range(40)]
    refused(there, there.post("/v1/datasets", files=parts), 400, "bad_form")


def test_a_file_where_a_form_belongs(there, nothing_changes):
    refused(there, there.post("/v1/datasets", data=ROWS), 422, "missing_part")


@pytest.mark.parametrize("name", ["Bad", "-a", ".a", "a b", "a" * 65, "a%25", "\u00e9"])
def test_name(there, nothing_changes, name):
    refused(there, there.put(f"/v1/datasets/{name}", data=ROWS), 422, "invalid_name")
    reply = there.post("/v1/datasets", files={"name": (None, name), "data": ("x", ROWS)})
    refused(there, reply, 422, "invalid_name", ["/name"])


@pytest.mark.parametrize("query", ["delimiter=x", "delimiter=", "header=maybe", "format=nothing", "delimitter=,"])
def test_query(there, nothing_changes, query):
    refused(there, there.put(f"/v1/datasets/new?{query}", data=ROWS), 400, "bad_query")


def test_content_encoding(there, nothing_changes):
    """gzip is a property of the file and not of the transfer."""
    reply = there.put("/v1/datasets/new", data=gzip.compress(ROWS.encode()), headers={"Content-Encoding": "gzip"})
    refused(there, reply, 415, "encoding_unsupported")


@pytest.mark.parametrize("promised", ["5000000", "99999999999999"])
def test_too_large_is_refused_before_it_is_sent(there, nothing_changes, promised):
    answer = raw(there, b"PUT /v1/datasets/new HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: " +
                 promised.encode() + b"\r\n\r\n")
    assert answer.status == 413 and b"100 Continue" not in answer.data
    assert check_problem(there, answer.headers, answer.body, 413, "body_too_large")["limit"] == 4 << 20


def test_a_chunked_upload_over_the_limit(there, nothing_changes):
    chunk = b"40000\r\n" + (1 << 16) * b"1,2\n" + b"\r\n"
    answer = raw(there, b"PUT /v1/datasets/new HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" +
                 18 * chunk + b"0\r\n\r\n")
    assert answer.status == 413 and answer.closed
    assert not [f for f in files(there) if f.startswith("tmp/")]


def test_a_full_disk(there, nothing_changes):
    """A file cannot be written to its end: 507, and all space is given back. With room again it works. (Of a body that
    goes on for long after the disk is full the rest is not waited for: the connection is cut.)"""
    def limit(size):
        resource.prlimit(there.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    body = "a,b\n" + "".join(f"{i},{2 * i}\n" for i in range(140_000))
    limit(1 << 20)
    try:
        refused(there, there.put("/v1/datasets/new", data=body), 507, "disk_full")
        form = {"name": (None, "new"), "data": ("x", body)}
        refused(there, there.post("/v1/datasets", files=form), 507, "disk_full")
        endless = body + 500_000 * "1,2\n"
        with pytest.raises(requests.ConnectionError):
            there.put("/v1/datasets/new", data=endless)
        # What was sent fits, and what is made of it does not: the table is larger than its gzip file.
        packed = gzip.compress(body.encode())
        assert len(packed) < 1 << 20
        refused(there, there.put("/v1/datasets/new", data=packed), 507, "disk_full")
    finally:
        limit(resource.RLIM_INFINITY)
    assert there.put("/v1/datasets/new", data=body).status_code == 201
    assert there.delete("/v1/datasets/new").status_code == 204


def test_a_full_database(make_daemon):
    """--max-database bounds what is stored: 507 for what no longer fits, and everything acknowledged stays."""
    d = make_daemon("--max-database", "400K")
    d.upload("flowers", flowers())
    reply, jobs = None, 0
    for _ in range(2000):
        reply = d.post("/v1/jobs", json={"dataset": "flowers", "target": "species", "layers": 100 * [4], "epochs": 1})
        if reply.status_code != 201:
            break
        jobs += 1
    assert reply.status_code in (429, 507), reply.text
    refused(d, reply, reply.status_code, reply.json()["code"])
    assert d.get("/v1/datasets/flowers").status_code == 200
    assert len(d.get("/v1/jobs?limit=1000").json()["data"]) == jobs
    # Its jobs wait for room; stopping does not. With room they go on.
    assert d.stop() == 0
    d.options = ()
    d.start()
    for job in d.get("/v1/jobs?limit=1000").json()["data"]:
        assert d.wait(job["id"])["status"] == "succeeded"


# Odd, and legal: id: (file, rows, types by column, missing by column)
ODD = {
    "crlf": (ROWS.replace("\n", "\r\n"), 30, ["number", "number", "category"], [0, 0, 0]),
    "cr": (ROWS.replace("\n", "\r"), 30, ["number", "number", "category"], [0, 0, 0]),
    "mixed line ends": (ROWS.replace("\n", "\r\n", 3), 30, ["number", "number", "category"], [0, 0, 0]),
    "no newline at the end": (ROWS[:-1], 30, ["number", "number", "category"], [0, 0, 0]),
    "blank lines": (ROWS.replace("\n", "\n\n"), 30, ["number", "number", "category"], [0, 0, 0]),
    "byte order mark": ("\ufeff" + ROWS, 30, ["number", "number", "category"], [0, 0, 0]),
    "semicolons": (ROWS.replace(",", ";"), 30, ["number", "number", "category"], [0, 0, 0]),
    "tabs": (ROWS.replace(",", "\t"), 30, ["number", "number", "category"], [0, 0, 0]),
    "gzip": (gzip.compress(ROWS.encode()), 30, ["number", "number", "category"], [0, 0, 0]),
    "one row": ("a,b\n1,2\n", 1, ["number", "number"], [0, 0]),
    "missing words": ("a,b\n" + "".join(f"{w},1\n" for w in ("", "NA", "NaN", "nan", "null", "?", "1")), 7,
                      ["number", "number"], [6, 0]),
    "blanks around a number": ("a,b\n 1 ,2\n3,4\n", 2, ["number", "number"], [0, 0]),
    "denormal": ("a,b\n1e-320,2\n3,4\n", 2, ["number", "number"], [0, 0]),
    "too small for a double": ("a,b\n1e-400,2\n3,4\n", 2, ["number", "number"], [0, 0]),
    "decimal commas are no numbers": ("a;b\n" + 10 * "1,5;2\n2,5;3\n", 20, ["category", "number"], [0, 0]),
    "thousands separators neither": ("a,b\n" + 10 * '"1,234.5",2\n"2,345.5",3\n', 20, ["category", "number"], [0, 0]),
    "infinity neither": ("a,b\n" + 10 * "inf,2\n1,3\n", 20, ["category", "number"], [0, 0]),
    "hexadecimal neither": ("a,b\n" + 10 * "0x10,2\n1,3\n", 20, ["category", "number"], [0, 0]),
    "digits of other scripts neither": ("a,b\n" + 10 * "\u0663,2\n1,3\n", 20, ["category", "number"], [0, 0]),
    "1_000 neither": ("a,b\n" + 10 * "1_000,2\n1,3\n", 20, ["category", "number"], [0, 0]),
    "more than a double can hold neither": ("a,b\n" + 10 * "1e999,2\n1,3\n", 20, ["category", "number"], [0, 0]),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_but_legal(there, name):
    body, rows, types, missing = ODD[name]
    profile = there.upload("odd", body)
    assert profile["rows"] == rows
    assert [c["type"] for c in profile["columns"]] == types
    assert [c["missing"] for c in profile["columns"]] == missing
    assert there.delete("/v1/datasets/odd").status_code == 204


@pytest.mark.parametrize("word", ["inf", "1e999", "1,5", "0x10", "1_000", "\u0663", "-", "12 cm"])
def test_one_odd_field_among_numbers(there, word):
    """The column is no number then, and where the odd one is, is told: it may be a slip."""
    profile = there.upload("slip", "a,b\n" + "".join(f"{i},{i % 7}.5\n" for i in range(200)) + f'"{word}",1.5\n')
    assert [c["type"] for c in profile["columns"]] == ["text", "number"]
    told = [w for w in profile["warnings"] if w["column"] == "a"]
    assert [w["code"] for w in told] == ["mixed_column"]
    assert "line 202" in told[0]["detail"] and word in told[0]["detail"]
    assert there.delete("/v1/datasets/slip").status_code == 204


def test_a_constant_column_is_told_and_harmless(there):
    there.upload("constant", "x,c,y\n" + "".join(f"{i / 2},3,{1.5 * i}\n" for i in range(60)))
    job = there.train({"dataset": "constant", "target": "y", "layers": [4], "epochs": 3})
    assert all(isinstance(v, float) for v in job["metrics"]["last"].values())
    assert [w["code"] for w in job["warnings"] if "'c'" in w["detail"]] == ["constant_column"], job["warnings"]
    told = [e["data"]["code"] for e in there.get(f"/v1/jobs/{job['id']}/events").json()["data"]
            if e["type"] == "warning"]
    assert told == ["constant_column"]
