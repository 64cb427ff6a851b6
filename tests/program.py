#!/usr/bin/env python3
"""The built program, as a user meets it: flags, a real HTTP server behind it, signals, exit codes.

Usage: program.py PATH_OF_KAGENT_PROXY. Standard library only; traffic stays on loopback.
"""

import http.client
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading

PROGRAM = sys.argv[1]
# What a kubelet injects for a Service named kagent-proxy (D23): none of it is a setting.
KUBELET = {
    "KAGENT_PROXY_PORT": "tcp://10.0.0.7:8080",
    "KAGENT_PROXY_SERVICE_HOST": "10.0.0.7",
    "KAGENT_PROXY_PORT_8080_TCP": "tcp://10.0.0.7:8080",
}


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers a POST with what arrived."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        answer = json.dumps({"path": self.path, "host": self.headers["host"], "bytes": len(body)})
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: object) -> None:
        pass


def run(*args: str) -> subprocess.CompletedProcess:
    return subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=30)


def commands() -> None:
    route = ["--route", "helper.team-a=127.0.0.1:9"]
    assert run("version").stdout.startswith("kagent-proxy ")
    assert run("check", *route).returncode == 0
    faulty = run("check", "--route", "helper.team-a", "--workers", "none")
    assert faulty.returncode == 64, faulty
    assert "--workers" in faulty.stdout and "--route" in faulty.stdout, faulty
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("routes:\n  - match: helper.team-a\n    target: [http://127.0.0.1:9]\n")
        file.flush()
        faulty = run("check", "--config", file.name)
        assert faulty.returncode == 64, faulty
        assert f"{file.name}:3" in faulty.stdout and "targets" in faulty.stdout, faulty
        file.seek(0)
        file.truncate()
        file.write("routes:\n  - match: helper.team-a\n    targets: [http://127.0.0.1:9]\n")
        file.flush()
        assert run("check", "--config", file.name).returncode == 0
    told = run("explain", "--host", "Helper.team-a.svc", "--path", "/mcp", *route).stdout
    assert told.startswith("POST /mcp for Helper.team-a.svc goes to http://127.0.0.1:9\n"), told
    assert "targets http://127.0.0.1:9 (--route)" in told, told
    explain = ["explain", "--output", "json"]
    known = json.loads(run(*explain, "--host", "Helper.team-a.svc", *route).stdout)
    assert known["targets"] == ["http://127.0.0.1:9"], known
    assert known["values"]["targets"]["source"] == "--route", known
    default = json.loads(run(*explain, "--default-route", "127.0.0.1:9").stdout)
    assert default["route"]["kind"] == "default", default
    asked = run("explain", "--host", "a", "--admin", "https://127.0.0.1:9")
    assert asked.returncode == 1 and "http://127.0.0.1:9091" in asked.stderr, asked
    unknown = json.loads(run(*explain, "--host", "helper.team-b", *route).stdout)
    assert unknown["reason"] == "unknown_target", unknown


def traffic() -> None:
    backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    port = backend.server_address[1]
    args = ["--route", f"helper.team-a=127.0.0.1:{port}", "--listen", "127.0.0.1:0"]
    args += ["--admin", "127.0.0.1:0", "--log-format", "json"]
    proxy = subprocess.Popen(
        [PROGRAM, "run", *args], stderr=subprocess.PIPE, text=True, env={**os.environ, **KUBELET}
    )
    try:
        first = ""
        while "serving" not in first:
            first = proxy.stderr.readline()
            assert first, "the program ended before it served"
        address = re.search(r'"listen":"([^"]+)"', first).group(1)
        client = http.client.HTTPConnection(address, timeout=30)
        body = os.urandom(10 * 1024 * 1024)
        client.request("POST", "/mcp?x=1", body, {"x-kagent-host": "helper.team-a"})
        answer = client.getresponse()
        assert answer.status == 200, answer.status
        seen = json.loads(answer.read())
        expected = {"path": "/mcp?x=1", "host": f"127.0.0.1:{port}", "bytes": len(body)}
        assert seen == expected, seen
        client.close()
        admin = re.search(r'"admin":"([^"]+)"', first).group(1)
        question = ["--host", "helper.team-a", "--path", "/mcp?x=1", "--admin", f"http://{admin}"]
        explained = json.loads(run("explain", "--output", "json", *question).stdout)
        assert explained["targets"] == [f"http://127.0.0.1:{port}"], explained
        assert explained["values"]["targets"]["source"] == "--route", explained
        line = json.loads(proxy.stderr.readline())
        assert line["target"] == "access" and line["outcome"] == "complete", line
        assert line["route"] == "helper.team-a" and line["status"] == 200, line
        # The first signal drains (five seconds of lag), the second ends at once.
        proxy.send_signal(signal.SIGTERM)
        while "under way" not in (line := proxy.stderr.readline()):
            assert line, "no word of the drain"
        assert json.loads(line)["open"] == 0, line
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(timeout=4) == 1
    finally:
        proxy.kill()
        proxy.wait()
        backend.shutdown()


def precedence() -> None:
    """Flag over environment over file over default, as /config shows it; a kubelet's words count as none."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("workers: 4\nlog: {format: text, level: warn}\nadmin: {address: '127.0.0.1:1'}\n")
        file.write("clusterDomain: example.org\nroutes: [{match: a.b, targets: ['127.0.0.1:9']}]\n")
        file.flush()
        ours = {
            "KAGENT_PROXY_CONFIG": file.name,
            "KAGENT_PROXY_WORKERS": "3",
            "KAGENT_PROXY_LOG_FORMAT": "json",
            "KAGENT_PROXY_LOG_LEVEL": "debug",
            "KAGENT_PROXY_LISTEN": "127.0.0.1:0",
        }
        proxy = subprocess.Popen(
            [PROGRAM, "--workers", "2", "--admin", "127.0.0.1:0"],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **KUBELET, **ours},
        )
        try:
            lines = []
            while "serving" not in (line := proxy.stderr.readline()):
                assert line, lines
                lines.append(line)
            ignored = [line for line in lines if "KAGENT_PROXY_PORT" in line]
            assert len(ignored) == 1, lines
            ignored = json.loads(ignored[0])
            assert ignored["level"] == "DEBUG", ignored
            for name in KUBELET:
                assert name in json.dumps(ignored), ignored
            for name in ours:
                assert f'"{name}' not in json.dumps(ignored).replace("\\", ""), ignored
            client = http.client.HTTPConnection(json.loads(line)["admin"], timeout=30)
            client.request("GET", "/config")
            shown = json.loads(client.getresponse().read())
            config, sources = shown["config"], shown["sources"]
            assert config["workers"] == 2 and sources["workers"] == "--workers", shown
            assert config["log"]["level"] == "debug", shown
            assert sources["log.level"] == "KAGENT_PROXY_LOG_LEVEL", shown
            assert config["clusterDomain"] == "example.org", shown
            assert sources["clusterDomain"] == f"{file.name}:4", shown
            assert config["reloadEvery"] == "2s" and "reloadEvery" not in sources, shown
        finally:
            proxy.kill()
            proxy.wait()


def demo() -> None:
    folder = tempfile.TemporaryDirectory()
    file = os.path.join(folder.name, "config.yaml")

    def write(routes: str) -> None:
        with open(file + ".new", "w") as new:
            new.write(f"reloadEvery: 20ms\nroutes: [{routes}]\n")
        os.rename(file + ".new", file)

    write("")
    args = ["demo", "--config", file, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    proxy = subprocess.Popen(
        [PROGRAM, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        lines = []
        while "Ctrl-C" not in (line := proxy.stdout.readline()):
            assert line, "the demo ended before it said what to try"
            lines.append(line)
        assert lines[0].startswith("Who calls whom: http://127.0.0.1:"), lines
        curls = [line for line in lines if line.startswith("curl ")]
        assert len(curls) == 3, lines
        call, stream, metrics = (
            subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=30)
            for curl in curls
        )
        assert json.loads(call.stdout)["result"]["content"][0]["text"] == "42", call
        data = [line[6:] for line in stream.stdout.splitlines() if line.startswith("data: ")]
        events = [json.loads(event)["result"] for event in data]
        assert events[0]["kind"] == "task" and events[-1]["final"] is True, stream
        said = [e["artifact"]["parts"][0]["text"] for e in events if e["kind"] == "artifact-update"]
        assert "".join(said) == "hello through the proxy" and len(said) == 4, stream
        for route in ("tools.demo", "agent.demo"):
            counted = rf'kagent_proxy_requests_total{{[^}}]*"{route}"[^}}]*}} [1-9]'
            assert re.search(counted, metrics.stdout), (route, metrics.stdout)
        # What the demo sets itself is no change.
        write("{match: a.b, targets: ['127.0.0.1:9']}")
        lines = []
        while "configuration is reloaded" not in (line := proxy.stderr.readline()):
            assert line, lines
            lines.append(line)
        assert not any("other settings" in line for line in lines), lines
        proxy.send_signal(signal.SIGINT)
        proxy.communicate(timeout=10)
        assert proxy.returncode == 0
    finally:
        proxy.kill()
        proxy.wait()
        folder.cleanup()


commands()
traffic()
precedence()
demo()
print("ok")
