#!/usr/bin/env python3
"""Real clients against real servers, direct and through the proxy, compared check by check.

Usage: run.py PATH_OF_KAGENT_PROXY. Makes the environment it needs (pinned) under `.work/`; what cannot
be made is a failure. Prints `ok`/`not ok` lines and `N passed, N failed`. Loopback only.
"""

import hashlib
import json
import pathlib
import re
import socket
import subprocess
import sys
import time
import venv

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PINS = HERE / "python" / "requirements-mcp-1.txt"
PATHS = {"streamable-http": "/mcp", "sse": "/sse"}


def environment() -> str:
    """The interpreter of an environment with the pinned packages, made once for each set of pins."""
    digest = hashlib.sha256(PINS.read_bytes()).hexdigest()[:12]
    place = ROOT / ".work" / f"mcp-1-{digest}"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        venv.create(place, with_pip=True, clear=True)
        command = [python, "-m", "pip", "install", "-q", "-r", PINS]
        subprocess.run(command, check=True, timeout=600)
        (place / "complete").touch()
    return str(python)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen) -> None:
    """Until something listens there, at most 30 s."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)  # between two looks at the port
    raise RuntimeError(f"nothing listens on {port}")


def client(python: str, transport: str, url: str) -> dict:
    script = str(HERE / "python" / "client_mcp.py")
    command = [python, script, transport, url, "tools.ns"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    if done.returncode != 0:
        raise RuntimeError(f"client ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def suite(python: str, program: str, transport: str) -> tuple[dict, dict, str]:
    """What a client saw direct, and through the proxy, and the proxy's metrics."""
    port, proxy_port, admin_port = free_port(), free_port(), free_port()
    script = str(HERE / "python" / "server_mcp.py")
    flags = ["--route", f"tools.ns=127.0.0.1:{port}", "--listen", f"127.0.0.1:{proxy_port}"]
    flags += ["--admin", f"127.0.0.1:{admin_port}", "--log-level", "warn"]
    started: list[subprocess.Popen] = []
    try:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen([python, script, transport, str(port)], **quiet))
        started.append(subprocess.Popen([program, "run", *flags]))
        wait_for(port, started[0])
        wait_for(proxy_port, started[1])
        direct = client(python, transport, f"http://127.0.0.1:{port}{PATHS[transport]}")
        proxied = client(python, transport, f"http://127.0.0.1:{proxy_port}{PATHS[transport]}")
        ask = b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", admin_port)) as admin:
            admin.sendall(ask)
            metrics = b"".join(iter(lambda: admin.recv(65536), b"")).decode()
        return direct, proxied, metrics
    finally:
        for process in started:
            process.kill()
            process.wait()


def main() -> int:
    program = sys.argv[1]
    passed = failed = 0
    for transport in PATHS:
        results: list[tuple[str, bool, str]] = []
        try:
            direct, proxied, metrics = suite(environment(), program, transport)
            for name in sorted(direct.keys() | proxied.keys()):
                pair = direct.get(name), proxied.get(name)
                results.append((name, pair[0] == pair[1], f"direct {pair[0]}, proxied {pair[1]}"))
            counts = re.findall(r'kagent_proxy_requests_total\{route="tools.ns"[^}]*\} (\d+)', metrics)
            total = sum(map(int, counts))
            results.append(("went through", total >= 5, f"only {total} requests passed the proxy"))
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            results.append(("run", False, str(error)))
        for name, good, why in results:
            print(f"ok python mcp 1 {transport} {name}" if good else f"not ok {transport} {name}: {why}")
            passed, failed = passed + good, failed + (not good)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


sys.exit(main())
