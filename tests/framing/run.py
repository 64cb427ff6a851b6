#!/usr/bin/env python3
"""Raw requests through the proxy to uvicorn, Node and hyper: each is refused, or read the same by all. And their
responses, however they end: the same through the proxy as direct (responses.py).

Usage: run.py PATH_OF_KAGENT_PROXY [--record]; hyper's backend is expected in `examples` beside it, where
`cargo test` and `cargo build --examples` put it. A marker request follows each on the same connection; a
backend that saw anything but the request and the marker was desynchronised. Makes uvicorn's environment
from pins under `.work/`. Loopback only.

recorded.json has the bytes of the backends' responses, which the unit tests of `src/upstream/h1` split at every byte;
--record writes them anew, else they must be those of today.
"""

import hashlib
import json
import pathlib
import queue
import re
import shutil
import socket
import subprocess
import sys
import threading
import venv

import responses

HERE = pathlib.Path(__file__).resolve().parent
WORK = HERE.parent.parent / ".work"
RECORDED = HERE / "recorded.json"
INSTALL_SECONDS = 300
# Nothing here takes longer; what does has failed.
BOUND = 10
FIELDS = b"Host: p\r\nx-kagent-host: s.ns\r\n"
HEAD = b"POST /a HTTP/1.1\r\n" + FIELDS
GET = b"GET /a HTTP/1.1\r\n" + FIELDS
MARKER = b"GET /marker HTTP/1.1\r\n" + FIELDS + b"Connection: close\r\n\r\n"
END = b"GET /end HTTP/1.1\r\n" + FIELDS + b"Connection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\n" + FIELDS + b"\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
ABC = b"3\r\nabc\r\n0\r\n\r\n"
THREE = b"Content-Length: 3\r\n\r\nabc"


def seen(body="abc", method="POST", path="/a", headers=None):
    return {"method": method, "path": path, "headers": headers or {}, "body": body}


# Name, bytes, and the reading: None if refused. Then whether the marker behind it is read too.
# Of both lengths hyper reads the chunks, sends chunks on and closes (RFC 9112 section 6.3 allows it):
# neither the smuggled request nor the marker may be taken from that connection.
CASES = [
    ("content length", HEAD + THREE, seen(), True),
    ("chunked", HEAD + TE + b"\r\n" + ABC, seen(), True),
    ("chunked, other case", HEAD + TE.upper() + b"\r\n" + ABC, seen(), True),
    ("chunked GET", GET + TE + b"\r\n" + ABC, seen(method="GET"), True),
    ("GET with a length", GET + THREE, seen(method="GET"), True),
    ("chunk extension", HEAD + TE + b"\r\n3;x=1\r\nabc\r\n0;y\r\n\r\n", seen(), True),
    ("trailer", HEAD + TE + b"\r\n3\r\nabc\r\n0\r\nx-test-t: 1\r\n\r\n", seen(), True),
    ("length named by Connection", HEAD + b"Connection: content-length\r\n" + THREE, seen(), True),
    ("absolute form", HEAD.replace(b" /a", b" http://evil.ns/a") + THREE, seen(), True),
    ("path and query", GET.replace(b"/a", b"/a//%2F/../b?x=%20&y") + b"\r\n",
     seen("", "GET", "/a//%2F/../b?x=%20&y"), True),
    ("repeated field", HEAD + b"x-test-a: 1\r\nX-Test-A: 2\r\n" + THREE, seen(headers={"x-test-a": "1, 2"}), True),
    ("empty and long fields", HEAD + b"x-test-a:\r\nx-test-b: \t " + b"b" * 9000 + b" \t\r\n" + THREE,
     seen(headers={"x-test-a": "", "x-test-b": "b" * 9000}), True),
    ("bare LF", (HEAD + b"Content-Length: 3\r\n\r\n").replace(b"\r\n", b"\n") + b"abc", seen(), True),
    ("empty line first", b"\r\n" + HEAD + THREE, seen(), True),
    ("two equal CL", HEAD + b"Content-Length: 3\r\n" + THREE, seen(), True),
    ("CL and TE", HEAD + b"Content-Length: 3\r\n" + TE + b"\r\n0\r\n\r\n" + SMUGGLED, seen(""), False),
    ("TE and CL", HEAD + TE + b"Content-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED, seen(""), False),
    ("two different CL", HEAD + b"Content-Length: 0\r\nContent-Length: 57\r\n\r\n" + SMUGGLED, None, False),
    ("CL with a sign", HEAD + b"Content-Length: +3\r\n\r\nabc", None, False),
    ("CL list", HEAD + b"Content-Length: 3, 3\r\n\r\nabc", None, False),
    ("TE not chunked last", HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", None, False),
    ("TE with another coding", HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", None, False),
    ("TE twice", HEAD + TE + TE + b"\r\n0\r\n\r\n", None, False),
    ("TE unknown", HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", None, False),
    ("TE in HTTP/1.0", HEAD.replace(b"1.1", b"1.0") + TE + b"\r\n" + ABC, None, False),
    ("obs-fold", HEAD + b"x-test-a: 1\r\n 2\r\n" + THREE, None, False),
    ("space before colon", HEAD + b"Content-Length : 3\r\n\r\nabc", None, False),
    ("bad chunk size", HEAD + TE + b"\r\nz\r\nabc\r\n0\r\n\r\n", None, False),
    ("chunk too long", HEAD + TE + b"\r\n2\r\nabc\r\n0\r\n\r\n", None, False),
    ("chunk with bare LF", HEAD + TE + b"\r\n3\nabc\n0\n\n", None, False),
    ("chunk size overflow", HEAD + TE + b"\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", None, False),
    ("NUL in a value", HEAD + b"x-test-a: a\0b\r\n" + THREE, None, False),
    ("control in a name", HEAD + b"x\x01a: b\r\n" + THREE, None, False),
    ("bare CR in a value", HEAD + b"x-test-a: a\rb\r\n" + THREE, None, False),
    ("two Hosts", HEAD + b"Host: q\r\n" + THREE, None, False),
    ("two targets", HEAD + b"x-kagent-host: t.ns\r\n" + THREE, None, True),
]


def python() -> pathlib.Path:
    """The interpreter of an environment with the pinned requirements, made once for each content."""
    pins = HERE / "requirements.txt"
    place = WORK / f"framing-{hashlib.sha256(pins.read_bytes()).hexdigest()[:12]}"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        venv.create(place, with_pip=True)
        pip = [place / "bin" / "python", "-m", "pip", "install", "-q", "-r", pins]
        subprocess.run(pip, check=True, timeout=INSTALL_SECONDS)
        (place / "complete").touch()
    return place / "bin" / "python"


def exchange(address: tuple, raw: bytes) -> bytes:
    """Everything the proxy answers to these bytes; a reset is an end too."""
    answers = b""
    with socket.create_connection(address, timeout=BOUND) as client:
        try:
            client.sendall(raw)
            while part := client.recv(65536):
                answers += part
        except ConnectionError:
            pass
    return answers


class Stage:
    """One backend, and a proxy before it."""

    def __init__(self, program: str, command: list) -> None:
        self.readings: queue.Queue = queue.Queue()
        self.processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True)]
        backend = self.processes[0].stdout
        port = int(backend.readline())
        self.direct = ("127.0.0.1", port)
        threading.Thread(target=lambda: [self.readings.put(json.loads(s)) for s in backend], daemon=True).start()
        args = ["--route", f"s.ns=127.0.0.1:{port}", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.processes.append(subprocess.Popen([program, "run", *args], stderr=subprocess.PIPE, text=True))
        log = self.processes[1].stderr
        line = ""
        while "serving" not in line:
            line = log.readline()
            if not line:
                raise RuntimeError("the proxy ended before it served")
        host, listen = re.search(r'listen"?[:=]"?([0-9.]+):(\d+)', line).groups()
        self.address = (host, int(listen))
        threading.Thread(target=lambda: [None for _ in log], daemon=True).start()

    def read(self, raw: bytes) -> tuple[list, list]:
        """The statuses that the client got, and what the backend read. The last request, on a
        connection of its own, comes behind everything else: both sides have closed by then."""
        statuses = re.findall(rb"HTTP/1\.1 (\d+)", exchange(self.address, raw + MARKER))
        exchange(self.address, END)
        readings = []
        while (last := self.readings.get(timeout=BOUND))["path"] != "/end":
            readings.append(last)
        return statuses, readings

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def main() -> int:
    program = pathlib.Path(sys.argv[1]).resolve()
    backends = {
        "uvicorn": [python(), HERE / "asgi.py"],
        "node": ["node", HERE / "node.js"],
        "hyper": [program.parent / "examples" / "framing_backend"],
    }
    marker = seen("", "GET", "/marker")
    failed, records = 0, []
    for backend, command in backends.items():
        stage = Stage(str(program), command)
        try:
            for name, raw, reading, followed in CASES:
                statuses, readings = stage.read(raw)
                wanted = [reading] * (reading is not None) + [marker] * followed
                answers = [b"200" if call else b"400" for call in [reading, marker][: 1 + followed]]
                good = readings == wanted and statuses == answers
                print("ok" if good else "not ok", f"{backend}: {name}", statuses, "" if good else readings)
                failed += not good
            failed += responses.compare(backend, stage.direct, stage.address)
            records += responses.record(backend, stage.direct)
        finally:
            stage.close()
    if "--record" in sys.argv:
        RECORDED.write_text(json.dumps(records, indent=1) + "\n")
    same = json.loads(RECORDED.read_text()) == records
    print("ok" if same else "not ok", "what was recorded of the backends is what they say")
    failed += not same
    return 1 if failed else 0


sys.exit(main())
