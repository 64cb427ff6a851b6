#!/usr/bin/env python3
"""The price of one exchange through the real program, in instructions and in allocations: with few headers,
with those that httpx sends for kagent's Python agents, which take other paths through a proxy, with those of MCP
2026-07-28, in a session that the proxy looks after, and where calls are not read (`sight.calls: false`).

Usage: gate.py PATH_OF_KAGENT_PROXY [--write] [--top]. Needs valgrind. The program serves twice under
callgrind, many requests and few; the difference is what a request costs, without the start. Compares
with baseline.json beside it and fails beyond 3 %, and beyond bounds of what a request, a session and sight may cost;
--write stores the new numbers, --top prints the functions that cost most. The program must be the one that
`pgo/build.sh` builds: others take more. Where much has changed since its profile was made, `pgo/train.py` makes a new
one.
"""

import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

BASELINE = pathlib.Path(__file__).with_name("baseline.json")
TOLERANCE = 0.03
FEW, MANY = 300, 1500
ANSWER = b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"3 pods are ready"}]}}'
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER)
BEGUN = WHOLE.replace(b"content-type", b"mcp-session-id: 1868a90c1f7e4a5c8d7b2c3d4e5f6071\r\ncontent-type", 1)
BODY = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
    "name": "kubectl", "arguments": {"question": "which pods are not ready, and why? " * 17}}}).encode()
HEAD = (b"POST /mcp HTTP/1.1\r\nhost: proxy\r\nx-kagent-host: tools.team-a\r\n"
        b"accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n"
        b"user-agent: gate\r\n"
        b"content-length: %d\r\n" % len(BODY))
HTTPX = (b"accept-encoding: gzip, deflate, br, zstd\r\nconnection: keep-alive\r\n"
         b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n")
MODERN = b"mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: kubectl\r\n"
PLAIN = HEAD + b"\r\n" + BODY
# "blind" is the plain one where calls are not read.
POSTS = {"": PLAIN, "httpx ": HEAD + HTTPX + b"\r\n" + BODY, "modern ": HEAD + MODERN + b"\r\n" + BODY,
         "session ": PLAIN, "blind ": PLAIN}
# As the Python SDK 1.x begins a session.
INITIALIZE = json.dumps({"method": "initialize", "params": {"protocolVersion": "2025-06-18", "capabilities": {},
    "clientInfo": {"name": "mcp", "version": "0.1.0"}}, "jsonrpc": "2.0", "id": 0}).encode()
OPENING = (b"POST /mcp HTTP/1.1\r\nhost: proxy\r\nx-kagent-host: tools.team-a\r\n"
           b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(INITIALIZE)) + INITIALIZE
# By those of another case (its name, or a number): the bound, with 2 % for the spread of runs and machines; and what is
# aimed at.
BOUNDS = [
    ("instructions", 33_000, 1.02, 1),
    ("httpx instructions", 37_000, 1.02, 1),
    ("allocations", 16, 1.03, 1),
    ("session instructions", "instructions", 1.16, 1.03),
    ("instructions", "blind instructions", 1.18, 1.03),
]
# jemalloc's entries: each call is one allocation or one that grows.
ALLOCATION = re.compile(r"^_rjem_(malloc|mallocx|calloc|realloc|rallocx|aligned_alloc)$")


def message(sock: socket.socket) -> bytes:
    """A whole message, framed by its length if it has a body; empty at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    while length and len(body) < int(length[1]):
        more = sock.recv(65536)
        if not more:
            return b""
        body += more
    return head + b"\r\n\r\n" + body


def in_session(client: socket.socket, post: bytes) -> bytes:
    """The same request in a session that begins now."""
    client.sendall(OPENING)
    token = re.search(rb"(?i)mcp-session-id: *(\S+)", message(client))
    assert token and token[1].startswith(b"kp1."), "no session has begun"
    return post.replace(b"user-agent", b"mcp-session-id: %s\r\nuser-agent" % token[1], 1)


def serve(program: str, name: str, post: bytes, requests: int, out: pathlib.Path, backend_port: int,
          more: tuple[str, ...] = ()) -> None:
    """Serves so many requests, with these options of callgrind. The log goes to a file, as in `compare`: where nobody
    reads it, only its queue grows."""
    log = out.with_suffix(".log")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["valgrind", "--tool=callgrind", "--separate-threads=yes", *more,
               f"--callgrind-out-file={out}", program, "run", "--listen", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0", "--workers", "1",
               "--route", f"tools.team-a=127.0.0.1:{backend_port}"]
    if name == "blind ":
        config = out.with_suffix(".yaml")
        config.write_text("sight: {calls: false}\n")
        command += ["--config", str(config)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("KAGENT_PROXY")}
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, env=env)
    begin = in_session if name == "session " else lambda _, post: post
    drive(process, port, log, begin, post, requests)


def drive(process: subprocess.Popen, port: int, log: pathlib.Path, begin, post: bytes, requests: int) -> None:
    """Sends what `begin` makes of the request so often over one connection, and ends the process."""
    try:
        until = time.monotonic() + 30
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                if process.poll() is not None or time.monotonic() > until:
                    sys.exit(f"the program does not listen: {log.read_text()}")
                time.sleep(0.1)  # valgrind starts slowly; the port opens when it is ready
        client.settimeout(30)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        post = begin(client, post)
        for _ in range(requests):
            client.sendall(post)
            assert b" 200 " in message(client), "a request was not answered by the backend"
        client.close()
        process.terminate()
        process.wait(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def read(out: pathlib.Path) -> tuple[int, collections.Counter, collections.Counter]:
    """Instructions in all, by function, and calls of each function.

    Leaves the first thread out: what it does (start, upkeep, looking at files) goes by the clock.
    """
    own: collections.Counter = collections.Counter()
    calls: collections.Counter = collections.Counter()
    for thread in threads(out):
        read_thread(thread, own, calls)
    return sum(own.values()), own, calls


def threads(out: pathlib.Path) -> list[pathlib.Path]:
    """What callgrind wrote of each thread but the first."""
    found = [file for file in out.parent.glob(f"{out.name}-*") if not file.name.endswith("-01")]
    assert found, "callgrind wrote no thread but the first"
    return found


def read_thread(out: pathlib.Path, own: collections.Counter, calls: collections.Counter) -> None:
    names: dict = {}
    function, callee, skip = "", "", False
    for line in out.read_text(errors="replace").splitlines():
        if match := re.match(r"(c?)fn=\((\d+)\)(?: (.*))?$", line):
            if match[3]:
                names[match[2]] = match[3]
            if match[1]:
                callee = names[match[2]]
            else:
                function = names[match[2]]
        elif line.startswith("calls="):
            calls[callee] += int(line[6:].split()[0])
            skip = True  # the next line is the cost of the callee
        elif re.match(r"[+\-*\d]", line):
            if not skip:
                own[function] += int(line.split()[1])
            skip = False


def main() -> None:
    program = sys.argv[1]
    if not shutil.which("valgrind"):
        subprocess.run(["apt-get", "install", "-y", "-q", "valgrind"], check=True)
    port = backend(tool_server)
    found: dict = {}
    for name, post in POSTS.items():
        found |= measure(program, name, post, port)
    print(f"per request: {found}")
    if "--write" in sys.argv:
        BASELINE.write_text(json.dumps(found, indent=2) + "\n")
        return
    stored = json.loads(BASELINE.read_text())
    bad = bounded(found)
    worse = {k: v for k, v in found.items() if v > stored[k] * (1 + TOLERANCE)}
    better = {k: v for k, v in found.items() if v < stored[k] * (1 - TOLERANCE)}
    if better:
        print(f"better than the baseline {stored}: store it with --write")
    if bad:
        sys.exit("; ".join(bad))
    if worse:
        sys.exit(f"a request costs more than the baseline {stored} allows: {worse}; "
                 "see --top for where, or store it with --write and say why")


def bounded(found: dict) -> list[str]:
    """What costs too much beside something else."""
    bad = []
    for name, other, bound, aim in BOUNDS:
        ratio = found[name] / found.get(other, other)
        print(f"{name} by {other}: {ratio:.3f}, at most {bound}, aim {aim}")
        if ratio > bound:
            bad.append(f"{name} are {ratio:.3f} times {other}, more than {bound}")
    return bad


def measure(program: str, name: str, post: bytes, backend_port: int) -> dict:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for requests in (FEW, MANY):
            out = pathlib.Path(folder) / f"{requests}.out"
            serve(program, name, post, requests, out, backend_port)
            results.append(read(out))
    (few, own_few, calls_few), (many, own_many, calls_many) = results
    between = MANY - FEW
    count = lambda calls: sum(n for name, n in calls.items() if ALLOCATION.match(name.split("'")[0]))
    found = {
        f"{name}instructions": round((many - few) / between),
        f"{name}allocations": round((count(calls_many) - count(calls_few)) / between, 1),
    }
    assert all(value > 1 for value in found.values()), f"measured nothing: {found}"
    if "--top" in sys.argv:
        own_many.subtract(own_few)
        for function, cost in own_many.most_common(45):
            print(f"{cost / between:9.0f}  {name}{function[:150]}")
    return found


def backend(answer) -> int:
    """A backend on the port that is returned, which says what `answer` makes of each message; a thread for each
    connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            sock, _ = listener.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve_connection, args=(sock, answer), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def serve_connection(sock: socket.socket, answer) -> None:
    with sock, contextlib.suppress(ConnectionError):
        while asked := message(sock):
            sock.sendall(answer(asked))


def tool_server(asked: bytes) -> bytes:
    """The answer of a tool server that has sessions."""
    return BEGUN if b'"initialize"' in asked else WHOLE


if __name__ == "__main__":
    main()
