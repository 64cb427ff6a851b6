#!/usr/bin/env python3
"""Peers that die without a word (D16): no FIN, no RST, packets simply stop. And one that lives and does not read.

Usage: dead_peers.py PATH_OF_KAGENT_PROXY SCENARIO. Makes three network namespaces (client, proxy, backend), opens a
stream through the proxy, takes the far end of a cable down, and waits until the other side hears of it. Where a
client died, all that counts it is back at nothing then. Scenarios:

- backend: it is idle, so keepalive finds it: 30 s until the first probe and three of 10 s;
- client: it owes an acknowledgement for a keep-alive comment, so the proxy's own watch finds it;
- sending: the same while the backend goes on sending, on the own stream of an MCP session;
- waiting: it has called and waits for an answer, so nothing is written to it: keepalive finds it;
- http2: its stream is one of HTTP/2, whose pings it does not answer;
- tunnel: it came through a CONNECT tunnel of an egress proxy (Envoy), which lives and takes whatever it is sent: what it
  cannot pass on is the sign. How long its kernel tries is lowered from 15 minutes (`net.ipv4.tcp_retries2`);
- stalled: it had stopped reading before it died, and answers no probe of its window any more;
- reader: nothing is taken down (and the admin listener is asked from outside, since there is one here); the client does not read for longer than all of these limits, then reads on
  and must get everything.

Needs root and iproute2. Stops by itself and takes the namespaces away.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

PROGRAM = str(pathlib.Path(sys.argv[1]).resolve())
ROOT = pathlib.Path(__file__).resolve().parent.parent
TAG = f"kp{os.getpid() % 10000}"
CLIENT, PROXY, BACKEND = (f"{TAG}-{name}" for name in ("client", "proxy", "backend"))
# A minute by D16, and room for a busy machine; far below any other limit. Probes of a window that has been
# closed for a while are a minute or two apart.
HEARD = {"backend": 100, "client": 100, "sending": 100, "waiting": 100, "http2": 100, "tunnel": 100, "stalled": 180}
# Of the kernel behind the egress proxy: some 15 s, instead of some 15 minutes with 15.
RETRIES = os.environ.get("TCP_RETRIES2", "5")
if RETRIES != "5":
    HEARD["tunnel"] = 1200
# More than all buffers on the way hold together.
LARGE = 96 << 20
# Longer than a dead peer would be given.
PAUSE = 90


def serving(steps: str) -> str:
    """A backend that takes every connection, each with a thread of its own: what that does, line by line."""
    lines = [f"    {line}" for line in steps.strip().splitlines()]
    return "\n".join([
        "import socket, threading, time",
        'server = socket.create_server(("10.98.2.2", 8080))',
        "def serve(call):",
        *lines,
        'print("ready", flush=True)',
        "while True:",
        "    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()",
    ])  # fmt: skip


BACKEND_CODE = serving("""
call.recv(65536)
call.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\n\\r\\ndata: 1\\n\\n")
try:
    call.recv(1)
except OSError:
    pass
print("gone", flush=True)
""")

CLIENT_CODE = """
import socket
call = socket.create_connection(("10.98.1.1", 8080))
call.sendall(b"GET /mcp HTTP/1.1\\r\\nhost: p\\r\\nx-kagent-host: s.ns\\r\\n\\r\\n")
seen = b""
while b"data: 1" not in seen:
    seen += call.recv(65536)
print("open", flush=True)
seen = b""
try:
    while more := call.recv(65536):
        seen += more
except OSError:
    pass
print("clean" if seen.endswith(b"0\\r\\n\\r\\n") else "abort", flush=True)
"""


SENDING_CODE = serving("""
head = b""
while b"\\r\\n\\r\\n" not in head:
    head += call.recv(65536)
if head.startswith(b"POST"):
    said = b'{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}'
    call.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\nmcp-session-id: 1\\r\\n"
                 b"content-length: %d\\r\\nconnection: close\\r\\n\\r\\n" % len(said) + said)
    return
try:
    call.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\n\\r\\n")
    while True:
        call.sendall(b"data: 1\\n\\n")
        time.sleep(0.5)  # that it goes on sending is what is tested
except OSError:
    print("gone", flush=True)
""")

SESSION_CODE = """
import socket
body = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}'
call = socket.create_connection(("10.98.1.1", 8080))
call.sendall(b"POST /mcp HTTP/1.1\\r\\nhost: p\\r\\nx-kagent-host: s.ns\\r\\ncontent-type: application/json\\r\\n"
             b"content-length: %d\\r\\nconnection: close\\r\\n\\r\\n" % len(body) + body)
seen = b""
while more := call.recv(65536):
    seen += more
token = seen.split(b"mcp-session-id: ")[1].split(b"\\r\\n")[0]
assert token.startswith(b"kp1."), seen
call = socket.create_connection(("10.98.1.1", 8080))
call.sendall(b"GET /mcp HTTP/1.1\\r\\nhost: p\\r\\nx-kagent-host: s.ns\\r\\naccept: text/event-stream\\r\\n"
             b"mcp-session-id: " + token + b"\\r\\n\\r\\n")
seen = b""
while b"data: 1" not in seen:
    seen += call.recv(65536)
print("open", flush=True)
while call.recv(65536):
    pass
"""

# One that never answers; a call of a client that waits.
SILENT_CODE = serving("""
call.recv(65536)
print("called", flush=True)
try:
    call.recv(1)
except OSError:
    pass
print("gone", flush=True)
""")

WAITING_CODE = """
import socket
call = socket.create_connection(("10.98.1.1", 8080))
call.sendall(b"POST / HTTP/1.1\\r\\nhost: p\\r\\nx-kagent-host: s.ns\\r\\ncontent-length: 2\\r\\n\\r\\n{}")
print("open", flush=True)
call.recv(1)
"""

# HTTP/2 by prior knowledge (RFC 9113), its fields as literals (RFC 7541 section 6.2.2).
HTTP2_CODE = """
import socket
def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
def field(name, value):
    return b"\\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/mcp"), (b":authority", b"p"), (b"x-kagent-host", b"s.ns")]
call = socket.create_connection(("10.98.1.1", 8080))
call.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + frame(4, 0, 0, b"") + frame(4, 1, 0, b"")
             + frame(1, 5, 1, b"".join(field(*one) for one in fields)))
seen = b""
while b"data: 1" not in seen:
    seen += call.recv(65536)
print("open", flush=True)
while call.recv(65536):
    pass
"""

TUNNEL_CODE = """
import socket
call = socket.create_connection(("10.98.1.1", 3128))
call.sendall(b"CONNECT 127.0.0.1:8080 HTTP/1.1\\r\\nhost: 127.0.0.1:8080\\r\\n\\r\\n")
seen = b""
while b"\\r\\n\\r\\n" not in seen:
    seen += call.recv(65536)
assert b" 200 " in seen, seen
call.sendall(b"GET /mcp HTTP/1.1\\r\\nhost: p\\r\\nx-kagent-host: s.ns\\r\\n\\r\\n")
while b"data: 1" not in seen:
    seen += call.recv(65536)
print("open", flush=True)
while call.recv(65536):
    pass
"""

# What a scenario's backend and client run, where it is not these two.
CODES = {
    "sending": (SENDING_CODE, SESSION_CODE),
    "waiting": (SILENT_CODE, WAITING_CODE),
    "http2": (BACKEND_CODE, HTTP2_CODE),
    "tunnel": (BACKEND_CODE, TUNNEL_CODE),
}


FLOOD_CODE = serving(f"""
call.recv(65536)
try:
    call.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: {LARGE}\\r\\n\\r\\n")
    for _ in range({LARGE} >> 20):
        call.sendall(bytes(1 << 20))
    call.recv(1)
except OSError:
    pass
print("gone", flush=True)
""")

READER_CODE = f"""
import socket, time
call = socket.create_connection(("10.98.1.1", 8080))
call.sendall(b"GET / HTTP/1.1\\r\\nhost: p\\r\\nx-kagent-host: s.ns\\r\\n\\r\\n")
seen = b""
while b"\\r\\n\\r\\n" not in seen:
    seen += call.recv(4096)
print("open", flush=True)
# The pause is what is tested.
time.sleep({PAUSE})
rest = {LARGE} - len(seen.split(b"\\r\\n\\r\\n", 1)[1])
try:
    while rest and (more := call.recv(1 << 20)):
        rest -= len(more)
except OSError:
    pass
print("abort" if rest else "whole", flush=True)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


def mac(namespace: str, link: str) -> str:
    path = f"/sys/class/net/{link}/address"
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, "cat", path], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def cable(left: str, right: str, net: str) -> None:
    """Two namespaces with addresses .1 and .2, whose neighbours are known for good."""
    a, b = f"{TAG}{net[-1]}a", f"{TAG}{net[-1]}b"
    ip("link", "add", a, "netns", left, "type", "veth", "peer", "name", b, "netns", right)
    for namespace, link, host in ((left, a, 1), (right, b, 2)):
        ip("-n", namespace, "addr", "add", f"{net}.{host}/24", "dev", link)
        ip("-n", namespace, "link", "set", link, "up")
    ip("-n", left, "neigh", "replace", f"{net}.2", "lladdr", mac(right, b), "dev", a)
    ip("-n", right, "neigh", "replace", f"{net}.1", "lladdr", mac(left, a), "dev", b)


def start(namespace: str, *command: str) -> subprocess.Popen:
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if command[0] == PROGRAM else None,
        text=True,
    )


def expect(stream, word: str, within: float) -> None:
    """The next line that has this word; its absence is the failure."""
    found: list[str] = []

    def read() -> None:
        while line := stream.readline():
            if word in line:
                found.append(line)
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(within)
    assert found, f"no {word!r} within {within} s"


def outside() -> None:
    """Who asks from outside the pod is told readiness and numbers, and nothing of routes (D31)."""
    code = "import http.client; c = http.client.HTTPConnection('{}:{}', timeout=20); c.request('{}', '{}'); "
    code += "print(c.getresponse().status)"
    # A peer on loopback proves nothing: behind a mesh's sidecar all are.
    for namespace, host, port in ((CLIENT, "10.98.1.1", 9090), (PROXY, "127.0.0.1", 9090), (PROXY, "127.0.0.1", 9091)):
        for method, path, closed in (
            ("GET", "/livez", False),
            ("GET", "/readyz", False),
            ("GET", "/metrics", False),
            ("GET", "/routes", True),
            ("GET", "/config", True),
            ("GET", "/explain?host=s.ns", True),
            ("POST", "/drain", True),
        ):
            if path == "/drain" and port == 9091:
                continue
            asked = code.format(host, port, method, path)
            command = ["ip", "netns", "exec", namespace, sys.executable, "-c", asked]
            status = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            expected = "403" if closed and port == 9090 else "200"
            assert status == expected, f"{method} {path} of {port} from {namespace}: {status}, not {expected}"
    # The other socket is not there at all for whoever is outside.
    code = "import socket; s = socket.socket(); s.settimeout(20); print(s.connect_ex(('10.98.1.1', 9091)))"
    command = ["ip", "netns", "exec", CLIENT, sys.executable, "-c", code]
    refused = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert refused == "111", f"9091 from outside: {refused}, not ECONNREFUSED"


def nothing_is_left() -> None:
    """Of a client that is gone: every gauge that counts requests, streams and places."""
    code = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9090/metrics', timeout=20).read().decode())"
    gauges = ("kagent_proxy_open_requests", "kagent_proxy_open_streams", "kagent_proxy_held_requests")
    text = ""
    for _ in range(200):
        command = ["ip", "netns", "exec", PROXY, sys.executable, "-c", code]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        lines = [line for line in text.splitlines() if line.startswith(gauges)]
        if len(lines) >= 2 and all(line.endswith(" 0") for line in lines):
            return
        time.sleep(0.1)  # between two looks
    raise AssertionError(f"something is left: {text}")


def egress() -> subprocess.Popen:
    """Envoy in the proxy's namespace, as a forward proxy that ends CONNECT; until it listens."""
    sys.path.insert(0, str(ROOT / "tests" / "fronts"))
    import proxies

    lower = f"echo {RETRIES} >/proc/sys/net/ipv4/tcp_retries2"
    subprocess.run(["ip", "netns", "exec", PROXY, "sh", "-c", lower], check=True, timeout=20)
    file = pathlib.Path(tempfile.mkdtemp(prefix=TAG)) / "envoy.json"
    file.write_text(json.dumps(proxies.envoy_config("10.98.1.1", 3128, 8080, admin=9901, connect=True)))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    envoy = start(PROXY, proxies.envoy_binary(), "-c", str(file), *options)
    for _ in range(300):
        table = subprocess.run(
            ["ip", "netns", "exec", PROXY, "cat", "/proc/net/tcp"], capture_output=True, text=True, check=True
        ).stdout
        if any(line.split()[1].endswith(f":{3128:04X}") for line in table.splitlines()[1:]):
            shutil.rmtree(file.parent)
            return envoy
        time.sleep(0.1)  # between two looks
    raise AssertionError("Envoy does not listen")


def stalled() -> None:
    """Until the client's window is closed: the proxy probes it (timer 04 in /proc/net/tcp)."""
    for _ in range(300):
        table = subprocess.run(
            ["ip", "netns", "exec", PROXY, "cat", "/proc/net/tcp"], capture_output=True, text=True, check=True
        ).stdout
        if any(line.split()[5].startswith("04:") for line in table.splitlines()[1:]):
            return
        time.sleep(0.1)
    raise AssertionError("the client's window never closed")


def scenario(dead: str) -> None:
    started: list[subprocess.Popen] = []
    try:
        for namespace in (CLIENT, PROXY, BACKEND):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        cable(PROXY, CLIENT, "10.98.1")
        cable(PROXY, BACKEND, "10.98.2")
        flooded = dead in ("stalled", "reader")
        usual = (FLOOD_CODE, READER_CODE) if flooded else (BACKEND_CODE, CLIENT_CODE)
        backend_code, client_code = CODES.get(dead, usual)
        backend = start(BACKEND, sys.executable, "-c", backend_code)
        started.append(backend)
        expect(backend.stdout, "ready", 20)
        listen = "127.0.0.1:8080" if dead == "tunnel" else "10.98.1.1:8080"
        flags = ["--listen", listen, "--admin", "0.0.0.0:9090"]
        flags += ["--route", "s.ns=10.98.2.2:8080", "--log-format", "json"]
        proxy = start(PROXY, PROGRAM, "run", *flags)
        started.append(proxy)
        expect(proxy.stderr, "serving", 20)
        if dead == "tunnel":
            started.append(egress())
        client = start(CLIENT, sys.executable, "-c", client_code)
        started.append(client)
        expect(client.stdout, "open", 20)
        before = time.monotonic()
        if dead == "backend":
            ip("-n", BACKEND, "link", "set", f"{TAG}2b", "down")
            expect(client.stdout, "abort", HEARD[dead])
            expect(proxy.stderr, '"outcome":"upstream_broke"', 20)
        elif dead == "reader":
            outside()
            expect(client.stdout, "whole", PAUSE + 60)
            expect(proxy.stderr, '"outcome":"complete"', 20)
        else:
            if dead == "stalled":
                stalled()
            ip("-n", CLIENT, "link", "set", f"{TAG}1b", "down")
            if dead == "waiting":
                expect(backend.stdout, "called", 20)
            expect(backend.stdout, "gone", HEARD[dead])
            expect(proxy.stderr, '"outcome":"client_gone"', 20)
            nothing_is_left()
        print(f"ok {dead}: after {time.monotonic() - before:.0f} s", flush=True)
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGKILL)
            process.wait()
        for namespace in (CLIENT, PROXY, BACKEND):
            subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL)


if shutil.which("ip") is None:
    subprocess.run(["apt-get", "update", "-qq"], check=True, timeout=300)
    subprocess.run(["apt-get", "install", "-y", "-qq", "iproute2"], check=True, timeout=300)
scenario(sys.argv[2])
