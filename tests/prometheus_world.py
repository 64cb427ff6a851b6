"""What the suite `prometheus.py` runs: Prometheus's programs, the proxy's demo, and clients and backends for what the
demo does not do by itself.

Everything listens on loopback and is ended by the one who began it. Knows no query and no rule.
"""

import contextlib
import http.client
import http.server
import json
import pathlib
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLACE = ROOT / ".work" / "prometheus"
JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


def tool(name: str) -> str:
    """`prometheus` or `promtool`: that of the machine, or Debian's package unpacked: no service, no root."""
    if found := shutil.which(name):
        return found
    unpacked = PLACE / "usr" / "bin" / name
    if not unpacked.exists():
        PLACE.mkdir(parents=True, exist_ok=True)
        for command in (["apt-get", "download", "-qq", "prometheus"], ["sh", "-c", "dpkg -x prometheus_*.deb ."]):
            subprocess.run(command, cwd=PLACE, check=True, timeout=300)
    return str(unpacked)


@contextlib.contextmanager
def running(command: list[str], log: pathlib.Path):
    """A program, until the block is left; what it says is in the file."""
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def until(condition, what: str, seconds: float = 60, pause: float = 0.2):
    """What the condition says once it says something; asks again and again."""
    end = time.monotonic() + seconds
    while True:
        if found := condition():
            return found
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        # A pause between two questions; what is waited for is the condition.
        time.sleep(pause)


def fetch(address: str, path: str, **parameters: str) -> bytes:
    """The body of a GET."""
    question = f"http://{address}{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(question, timeout=10) as answer:
        return answer.read()


class Prometheus:
    """A server of Prometheus, by its HTTP API."""

    def __init__(self, address: str):
        self.address = address

    def get(self, path: str, **parameters: str):
        answer = json.loads(fetch(self.address, f"/api/v1/{path}", **parameters))
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict]:
        """The vector that it is now."""
        try:
            return self.get("query", query=expression)["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}\n{error.read().decode()}") from error

    def is_ready(self) -> bool:
        try:
            return b"Ready" in fetch(self.address, "/-/ready")
        except OSError:
            return False


@contextlib.contextmanager
def prometheus(scraped: str, rules: pathlib.Path, place: pathlib.Path):
    """Prometheus, with these rules, that scrapes this address every second."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "127.0.0.1:{}".format(taken.getsockname()[1])
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "kagent-proxy", "static_configs": [{"targets": [scraped]}]}],
    }
    # JSON is YAML.
    (place / "prometheus.yml").write_text(json.dumps(settings))
    command = [tool("prometheus"), f"--config.file={place}/prometheus.yml", f"--web.listen-address={address}"]
    command += [f"--storage.tsdb.path={place}/data", "--log.level=warn"]
    log = place / "prometheus.log"
    with running(command, log) as process:
        server = Prometheus(address)

        def is_ready() -> bool:
            assert process.poll() is None, log.read_text()
            return server.is_ready()

        until(is_ready, "Prometheus is ready")
        yield server
        assert process.poll() is None, log.read_text()


class Tasks(http.server.BaseHTTPRequestHandler):
    """An Agent that begins a task with every message."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        task = {"kind": "task", "id": "task-1", "contextId": "c", "status": {"state": "working"}}
        body = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": task}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def backends():
    """Routes that the demo lacks, as flags: an Agent with tasks on two ports, and a server that breaks off calls."""
    broken = socket.create_server(("127.0.0.1", 0))

    def break_off() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = broken.accept()
                with connection:
                    connection.recv(65536)

    agents = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tasks) for _ in range(2)]
    threads = [threading.Thread(target=agent.serve_forever, daemon=True) for agent in agents]
    threads.append(threading.Thread(target=break_off, daemon=True))
    for thread in threads:
        thread.start()
    ports = [agent.server_address[1] for agent in agents]
    try:
        yield [
            "--route",
            "tasks.test=" + ",".join(f"127.0.0.1:{port}" for port in ports),
            "--route",
            f"broken.test=127.0.0.1:{broken.getsockname()[1]}",
        ]
    finally:
        for agent in agents:
            agent.shutdown()
            agent.server_close()
        broken.shutdown(socket.SHUT_RDWR)
        broken.close()


@contextlib.contextmanager
def demo(program: str, place: pathlib.Path):
    """The demo; yields where it takes traffic and where it is scraped."""
    # So that there are connections by worker, too.
    (place / "demo.yaml").write_text("scheduler: perCore\n")
    log = place / "demo.log"
    with backends() as routes:
        command = [program, "demo", "--config", f"{place}/demo.yaml", "--workers", "2", *routes]
        command += ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"]
        with running(command, log) as process:

            def serves():
                assert process.poll() is None, log.read_text()
                return re.search(r'"serving".*"listen":"([^"]+)","admin":"([^"]+)"', log.read_text())

            found = until(serves, "the demo serves")
            yield found.group(1), found.group(2)
            assert process.poll() is None, log.read_text()


class Client:
    """One who calls through the proxy what the demo's Agents do not."""

    def __init__(self, address: str):
        self.address = address

    def ask(self, host: str, body: dict | None, session: str = "", method: str = "POST"):
        """A request, and its answer with the connection that it comes on."""
        connection = http.client.HTTPConnection(self.address, timeout=20)
        headers = JSON | {"x-kagent-host": host} | ({"mcp-session-id": session} if session else {})
        connection.request(method, "/mcp", json.dumps(body) if body else None, headers)
        return connection.getresponse(), connection

    def call(self, host: str, method: str, parameters: dict, session: str = "") -> http.client.HTTPResponse:
        answer, connection = self.ask(
            host, {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}, session
        )
        answer.read()
        connection.close()
        return answer

    def session(self) -> str:
        """A session with the demo's server of notes."""
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        token = self.call("notes.demo", "initialize", about).headers["mcp-session-id"]
        assert token, "notes.demo has sessions"
        return token

    def rarities(self) -> None:
        """A refused host, an unknown tool, a call in doubt, errors, a task, a closed session, and a lost one."""
        assert self.call("nobody.test", "tools/list", {}).status == 503
        assert self.call("tools.demo", "tools/call", {"name": "nothing", "arguments": {}}).status == 200
        assert self.call("broken.test", "tools/call", {"name": "x", "arguments": {}}).status == 200
        message = {"kind": "message", "messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "x"}]}
        # Without an error of A2A its series would have no error_type: to Prometheus an empty label is none.
        assert self.call("broken.test", "message/send", {"message": message}).status == 502
        assert self.call("tasks.test", "message/send", {"message": message}).status == 200
        assert self.call("tasks.test", "tasks/get", {"id": "task-1"}).status == 200
        token = self.session()
        answer, connection = self.ask("notes.demo", None, token, "DELETE")
        answer.read()
        connection.close()
        assert answer.status < 300, answer.status
        middle = len(token) // 2
        forged = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
        assert self.call("notes.demo", "tools/list", {}, forged).status == 404

    @contextlib.contextmanager
    def stream(self):
        """A session's own stream, open until the block is left."""
        answer, connection = self.ask("notes.demo", None, self.session(), "GET")
        assert answer.status == 200, answer.status
        try:
            yield
        finally:
            connection.close()
