#!/usr/bin/env python3
"""Raw requests through the proxy to a Node backend: each is refused, or seen as exactly one request.

Usage: run.py PATH_OF_KAGENT_PROXY. A marker request follows on the same connection; a backend that saw
anything but the request and the marker was desynchronised. Standard library and `node`; loopback only.
"""

import json
import pathlib
import queue
import re
import socket
import subprocess
import sys
import threading

HERE = pathlib.Path(__file__).resolve().parent
HEAD = b"POST /a HTTP/1.1\r\nHost: p\r\nx-kagent-host: s.ns\r\n"
MARKER = b"GET /marker HTTP/1.1\r\nHost: p\r\nx-kagent-host: s.ns\r\nConnection: close\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: p\r\nx-kagent-host: s.ns\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

# Name, bytes, and what must come: True is seen, False is refused, None is either, but never two.
# Both lengths at once: hyper reads chunks, sends chunks on and closes (RFC 9112 section 6.3 allows it);
# what matters is that neither the smuggled request nor the marker is taken from that connection.
BOTH = ("CL and TE", "TE and CL")
CASES = [
    ("content length", HEAD + b"Content-Length: 3\r\n\r\nabc", True),
    ("chunked", CHUNKED + b"3\r\nabc\r\n0\r\n\r\n", True),
    ("chunk extension", CHUNKED + b"3;x=1\r\nabc\r\n0\r\n\r\n", None),
    ("absolute form", HEAD.replace(b" /a", b" http://evil.ns/a") + b"Content-Length: 3\r\n\r\nabc", True),
    ("CL and TE", HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, None),
    ("TE and CL", HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + SMUGGLED, None),
    ("two different CL", HEAD + b"Content-Length: 0\r\nContent-Length: 57\r\n\r\n" + SMUGGLED, False),
    ("two equal CL", HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", None),
    ("CL with a sign", HEAD + b"Content-Length: +3\r\n\r\nabc", False),
    ("TE not chunked last", HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", False),
    ("TE unknown", HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", False),
    ("obs-fold", HEAD + b"x-a: 1\r\n 2\r\nContent-Length: 3\r\n\r\nabc", False),
    ("space before colon", HEAD + b"Content-Length : 3\r\n\r\nabc", False),
    ("bare LF", (HEAD + b"Content-Length: 3\r\n\r\n").replace(b"\r\n", b"\n") + b"abc", None),
    ("bad chunk size", CHUNKED + b"z\r\nabc\r\n0\r\n\r\n", False),
    ("chunk too long", CHUNKED + b"2\r\nabc\r\n0\r\n\r\n", False),
    ("chunk size overflow", CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n", False),
    ("NUL in a value", HEAD + b"x-a: a\0b\r\nContent-Length: 3\r\n\r\nabc", False),
    ("control in a name", HEAD + b"x\x01a: b\r\nContent-Length: 3\r\n\r\nabc", False),
    ("two targets", HEAD + b"x-kagent-host: t.ns\r\nContent-Length: 3\r\n\r\nabc", False),
]


def one(address: tuple, raw: bytes) -> bytes:
    """Everything the proxy answers to these bytes and a marker; a reset is an end too."""
    seen = b""
    with socket.create_connection(address, timeout=10) as client:
        try:
            client.sendall(raw + MARKER)
            while part := client.recv(65536):
                seen += part
        except ConnectionError:
            pass
    return seen


def main() -> int:
    node = subprocess.Popen(["node", HERE / "node.js"], stdout=subprocess.PIPE, text=True)
    proxy = None
    seen: queue.Queue = queue.Queue()
    try:
        port = int(node.stdout.readline())
        threading.Thread(target=lambda: [seen.put(json.loads(s)) for s in node.stdout], daemon=True).start()
        args = ["--route", f"s.ns=127.0.0.1:{port}", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        proxy = subprocess.Popen([sys.argv[1], "run", *args], stderr=subprocess.PIPE, text=True)
        line = ""
        while "serving" not in line:
            line = proxy.stderr.readline()
            assert line, "the proxy ended before it served"
        host, listen = re.search(r'listen"?[:=]"?([0-9.]+):(\d+)', line).groups()
        threading.Thread(target=lambda: [None for _ in proxy.stderr], daemon=True).start()
        failed = 0
        for name, raw, wanted in CASES:
            answers = one((host, int(listen)), raw)
            # Behind everything else, so that what the backend saw is complete.
            one((host, int(listen)), b"GET /end HTTP/1.1\r\nHost: p\r\nx-kagent-host: s.ns\r\n\r\n")
            got = []
            while (last := seen.get(timeout=10))["path"] != "/end":
                got.append(last)
            while not seen.empty() or last["path"] != "/marker":
                last = seen.get(timeout=10)
            call = {"method": "POST", "path": "/a", "body": "" if name in BOTH else "abc"}
            paths = [g["path"] for g in got]
            whole = bool(got) and got[0] == call
            allowed = {"/a"} if name in BOTH else {"/a", "/marker"}
            fine = set(paths) <= allowed and len(set(paths)) == len(paths)
            fine = fine and ("/a" not in paths or whole) and wanted in (None, whole)
            status = re.findall(rb"HTTP/1\.1 (\d+)", answers)
            print("ok" if fine else "not ok", name, "-", "seen" if whole else "refused", status, got if not fine else "")
            failed += not fine
        return 1 if failed else 0
    finally:
        for process in filter(None, (proxy, node)):
            process.kill()
            process.wait()


sys.exit(main())
