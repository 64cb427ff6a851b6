#!/usr/bin/env python3
"""Makes `kagent-proxy.profdata.xz`, by which `build.sh` builds the program: how often each branch of it is taken.

Usage: train.py [--program PATH] [--peer PATH]. Builds the program so that it counts (ten minutes), gives it the work
below for half a minute, and writes the profile. Needs nghttp2-client, nghttp2-server and openssl from apt, and
llvm-tools of the pinned toolchain, which rustup fetches. With --program only the work is done, and no profile made:
whether the work still fits the program is seen in seconds. --peer is a build of the peer of `compare`.

The work is what passes through the proxy of a cluster: calls of MCP and A2A with the heads of real clients, sessions,
event streams, agent cards, legacy SSE, refusals, HTTP/2 and TLS, on one worker and on two. What is rare there may be
rare here, but has to happen: code that never ran is built small and slow.
"""

import argparse
import json
import lzma
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "compare")]

import gate  # noqa: E402
import run  # noqa: E402

PROFILE = HERE / "kagent-proxy.profdata.xz"
WORK = ROOT / ".work" / "pgo"
PROGRAMS = {"h2load": "nghttp2-client", "nghttpd": "nghttp2-server", "openssl": "openssl"}
# Calls of each kind: enough for the branches that every tenth call takes.
CALLS = 3000
SECONDS = 60
EVENT = b"event: message\ndata: %s\n\n"
CARD = json.dumps({
    "name": "helper", "description": "helps", "url": "http://helper.team-a:8080/", "version": "1.0.0",
    "preferredTransport": "JSONRPC", "capabilities": {"streaming": True}, "defaultInputModes": ["text"],
    "skills": [{"id": "help", "name": "help", "description": "helps with pods", "tags": ["k8s"]}],
}).encode()


# === What answers ===

def agent(asked: bytes) -> bytes:
    """What tool servers and agents say: answers, event streams, cards."""
    head, _, body = asked.partition(b"\r\n\r\n")
    if b"agent-card.json" in head:
        return whole(b"200 OK", CARD)
    if b"accept: text/event-stream\r\n" in head + b"\r\n":
        return stream([b"event: endpoint\ndata: /messages?session_id=1\n\n"] if b"/sse" in head else
                      [EVENT % b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}', b": ping\n\n"] * 3)
    if not body:
        return whole(b"404 Not Found", b"no")
    call = json.loads(body)
    if "id" not in call:
        return whole(b"202 Accepted", b"")
    answer = {"jsonrpc": "2.0", "id": call["id"], "result": {"content": [{"type": "text", "text": "3 pods"}]}}
    if call["method"] == "message/stream":
        states = [{"kind": "status-update", "taskId": "t", "contextId": "c", "final": last,
                   "status": {"state": "completed" if last else "working"}} for last in (False, False, True)]
        return stream([EVENT % json.dumps(answer | {"result": state}).encode() for state in states])
    if b"accept: text/event-stream, application/json" in head:
        return stream([EVENT % json.dumps(answer).encode()])
    if call["id"] % 10 == 0:
        answer = {"jsonrpc": "2.0", "id": call["id"], "error": {"code": -32602, "message": "unknown tool"}}
    return whole(b"200 OK", json.dumps(answer).encode())


def whole(status: bytes, body: bytes) -> bytes:
    return (b"HTTP/1.1 %s\r\ndate: Sat, 28 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))


def stream(events: list[bytes]) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(event), event) for event in events)
    return (b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncache-control: no-cache\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n%s0\r\n\r\n" % chunks)


# === The program ===

class Program:
    """One run of it; its counts are written when it ends."""

    def __init__(self, path: str, folder: pathlib.Path, routes: dict[str, str], workers: int = 1,
                 calls: bool = True, more: str = "") -> None:
        self.port = run.free_port()
        config = folder / f"{self.port}.yaml"
        targets = ", ".join(f'{{match: {host}, targets: ["{to}"]}}' for host, to in routes.items())
        config.write_text(f"""
listeners: [{{name: http, address: "127.0.0.1:{self.port}"}}{more}]
admin: {{address: "127.0.0.1:0"}}
routes: [{targets}]
workers: {workers}
sight: {{calls: {str(calls).lower()}}}
drain: {{lag: 0s}}
""")
        env = {k: v for k, v in os.environ.items() if not k.startswith("KAGENT_PROXY")}
        self.log = config.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [path, "run", "--config", str(config)], env=env, stdout=subprocess.DEVNULL, stderr=log)

    def __enter__(self) -> int:
        try:
            run.listens(self.process, self.port, "the program", self.log)
        except BaseException:
            self.process.kill()
            raise
        return self.port

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(SECONDS)


# === The work ===

def exchange(port: int, requests: list[bytes], times: int, status: bytes = b"HTTP/1.1 2") -> None:
    """Sends the requests in turn over one connection, and reads each response to its end."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(SECONDS)
        for _ in range(times):
            for request in requests:
                sock.sendall(request)
                data = b""
                while not ended(data):
                    more = sock.recv(65536)
                    assert more, f"closed behind {data[:500]}"
                    data += more
                assert data.startswith(status), data[:500]


def ended(data: bytes) -> bool:
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        return False
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n") or b"transfer-encoding" not in head


def request(line: bytes, host: bytes, body: bytes = b"", more: bytes = b"") -> bytes:
    length = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body) if body else b""
    head = b"%s HTTP/1.1\r\nhost: proxy:8080\r\nx-kagent-host: %s\r\n" % (line, host)
    return head + gate.HTTPX + more + length + b"\r\n" + body


def gates(program: str, folder: pathlib.Path) -> None:
    """The requests of `gate.py`, with calls read and without."""
    routes = {"tools.team-a": f"http://127.0.0.1:{gate.backend(gate.tool_server)}"}
    for calls in (True, False):
        with Program(program, folder, routes, calls=calls) as port:
            for name, post in gate.POSTS.items():
                with socket.create_connection(("127.0.0.1", port)) as sock:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    if name == "session ":
                        post = gate.in_session(sock, post)
                    for _ in range(CALLS):
                        sock.sendall(post)
                        assert b" 200 " in gate.message(sock), name


def agents(program: str, folder: pathlib.Path) -> None:
    """What clients of MCP and A2A ask an agent and a tool server."""
    tool = lambda number: json.dumps({"method": "tools/call", "params": {"name": "get_pods", "arguments": {
        "namespace": "team-a"}, "_meta": {"progressToken": number}}, "jsonrpc": "2.0", "id": number}).encode()
    told = json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode()
    send = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "message/stream", "params": {"message": {
        "role": "user", "parts": [{"kind": "text", "text": "Which pods fail?"}], "messageId": "m"}}}).encode()
    both = b"accept: application/json, text/event-stream\r\n"
    with Program(program, folder, {"helper.team-a": f"http://127.0.0.1:{gate.backend(agent)}"}) as port:
        ask = lambda line, body=b"", more=both: request(line, b"helper.team-a", body, more)
        posts = [ask(b"POST /mcp", tool(number)) for number in range(1, 11)]
        events = [ask(b"POST /mcp", tool(3), b"accept: text/event-stream, application/json\r\n")]
        exchange(port, posts + events, CALLS // 10)
        exchange(port, [ask(b"POST /mcp", told)], CALLS // 10)
        exchange(port, [ask(b"POST /", send)], CALLS // 10)
        exchange(port, [ask(b"GET /.well-known/agent-card.json", more=b"")], CALLS // 10)
        exchange(port, [ask(b"GET /mcp", more=b"accept: text/event-stream\r\n")], CALLS // 10)
        exchange(port, [ask(b"GET /sse", more=b"accept: text/event-stream\r\n")], CALLS // 10)
        exchange(port, [ask(b"GET /nothing", more=b"")], 50, b"HTTP/1.1 404")
        exchange(port, [request(b"GET /mcp", b"nobody.team-a")], 50, b"HTTP/1.1 503")
        exchange(port, [request(b"GET /mcp", b"http://x")], 50, b"HTTP/1.1 400")


def loads(program: str, folder: pathlib.Path, peer: run.Peer) -> None:
    """The loads of `compare`, on one worker and on two."""
    for workers in (1, 2):
        with Program(program, folder, {"tools.team-a": f"http://127.0.0.1:{peer.backend}"}, workers) as port:
            peer.ask("load", port, 64, 8 * CALLS)
            peer.ask("load", port, 1, CALLS)
            peer.ask("rate", port, 64, 2 * CALLS, 4000)
            for streams in (1, 256):
                peer.ask("events", port, streams, 4 * CALLS)
                peer.answer()
            peer.ask("hold", port, 500)
            peer.ask("release")


def versions(program: str, folder: pathlib.Path, peer: run.Peer) -> None:
    """HTTP/2 on either side and on both, and TLS."""
    (folder / "www").mkdir()
    (folder / "www" / "mcp").write_bytes(gate.ANSWER)
    (folder / "body").write_bytes(gate.BODY)
    key, certificate, backend, tls = folder / "key.pem", folder / "cert.pem", run.free_port(), run.free_port()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
                    "-days", "2", "-subj", "/CN=localhost"], check=True, stderr=subprocess.DEVNULL)
    log = folder / "nghttpd.log"
    with log.open("wb") as errors:
        server = subprocess.Popen(["nghttpd", "--no-tls", "-d", str(folder / "www"), "-n1", str(backend)],
                                  stdout=subprocess.DEVNULL, stderr=errors)
    routes = {"tools.team-a": f"http://127.0.0.1:{peer.backend}", "h2.team-a": f"h2c://127.0.0.1:{backend}"}
    more = f', {{name: tls, address: "127.0.0.1:{tls}", tls: {{certFile: {certificate}, keyFile: {key}}}}}'
    try:
        run.listens(server, backend, "nghttpd", log)
        with Program(program, folder, routes, more=more) as port:
            plain, sealed = f"http://127.0.0.1:{port}/mcp", f"https://127.0.0.1:{tls}/mcp"
            for url, host, option in [
                (plain, "tools.team-a", []), (plain, "h2.team-a", []), (plain, "h2.team-a", ["--h1"]),
                (sealed, "tools.team-a", []), (sealed, "tools.team-a", ["--h1"]),
            ]:
                done = subprocess.run(
                    ["h2load", "-n", str(CALLS), "-c", "16", "-m", "8", "-d", str(folder / "body"),
                     "-H", f"x-kagent-host: {host}", "-H", "content-type: application/json", *option, url],
                    capture_output=True, text=True, timeout=SECONDS)
                assert f"{CALLS} 2xx" in done.stdout, f"{url} {host}: {done.stdout}{done.stderr}"
    finally:
        server.kill()
        server.wait()


# === The profile ===

def profdata() -> str:
    """LLVM's tool of the toolchain, which alone reads what that toolchain wrote."""
    lib = subprocess.run(["rustc", "--print", "target-libdir"], cwd=ROOT, check=True, capture_output=True, text=True)
    tool = pathlib.Path(lib.stdout.strip()).parent / "bin" / "llvm-profdata"
    if not tool.exists():
        subprocess.run(["rustup", "component", "add", "llvm-tools"], cwd=ROOT, check=True)
    return str(tool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program")
    parser.add_argument("--peer")
    args = parser.parse_args()
    lacking = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if lacking:
        subprocess.run(["apt-get", "install", "-y", "-q", *lacking], check=True)
    counts, merge = WORK / "counts", profdata()
    program = args.program
    if not program:
        env = os.environ | {"PROFILE_FLAGS": f"-Cprofile-generate={counts}", "CARGO_TARGET_DIR": str(WORK / "target")}
        subprocess.run(["bash", str(HERE / "build.sh")], env=env, check=True)
        program = str(WORK / "target" / "shipped" / "release" / "kagent-proxy")
        # Build scripts counted, too.
        shutil.rmtree(counts, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="train-") as name:
        folder = pathlib.Path(name)
        peer = run.Peer(args.peer or str(run.built_peer()))
        try:
            for work in (gates, agents):
                print(work.__doc__, flush=True)
                work(program, folder)
            for work in (loads, versions):
                print(work.__doc__, flush=True)
                work(program, folder, peer)
        finally:
            peer.stop()
    if args.program:
        return
    merged = WORK / "merged.profdata"
    subprocess.run([merge, "merge", "-o", str(merged), *map(str, counts.glob("*.profraw"))], check=True)
    PROFILE.write_bytes(lzma.compress(merged.read_bytes(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{PROFILE.relative_to(ROOT)}: {PROFILE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
