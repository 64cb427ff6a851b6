#!/usr/bin/env python3
"""kagent-proxy in front of others and behind them: the real ones, check by check.

Usage: run.py PATH_OF_KAGENT_PROXY [ARRANGEMENT...]. In each arrangement the same checks run twice: through the other
proxy alone, and with ours beside it; what was seen must be the same. Prints `ok NAME` and `not ok NAME: why` lines.
Loopback only; everything it starts it ends.
"""

import json
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import time
import traceback
from collections.abc import Callable

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import checks  # noqa: E402
import many  # noqa: E402
import proxies  # noqa: E402
from backend import BOUND, Backend, read_head, status_of  # noqa: E402
from checks import Connect, ask  # noqa: E402
from harness import HERE as CLIENTS, Results, Stage, _made, free_port, install, python  # noqa: E402

# The whole run, once the environments stand.
RUN_SECONDS = 300
CLIENT = CLIENTS / "python" / "client_mcp.py"
CLIENT_2 = CLIENTS / "python" / "client_mcp_2.py"


def plain(port: int) -> Connect:
    return lambda: socket.create_connection(("127.0.0.1", port), timeout=BOUND)


def through(proxy_port: int, port: int) -> Connect:
    """A connection through a forward proxy's CONNECT."""

    def connect() -> socket.socket:
        sock = plain(proxy_port)()
        sock.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
        head, rest = read_head(sock)
        assert status_of(head) == 200 and not rest, head
        return sock

    return connect


class Run:
    """What all arrangements stand on."""

    def __init__(self, stage: Stage, results: Results, interpreters: dict[str, str]) -> None:
        self.stage, self.results, self.interpreters = stage, results, interpreters
        self.backend = Backend()
        self.mcp = free_port()
        self.server = [interpreters["mcp-1"], CLIENTS / "python" / "server_mcp.py", "streamable-http", self.mcp]
        self.serving = stage.start(f"mcp-{self.mcp}", self.server, self.mcp)
        self.mcp_2 = free_port()
        server = [interpreters["mcp-2"], CLIENTS / "python" / "server_mcp_2.py", "streamable-http", self.mcp_2]
        stage.start(f"mcp-{self.mcp_2}", server, self.mcp_2)
        self.seen_direct: dict[str, dict] = {}

    def routes(self, scheme: str = "http", raw: int | None = None, tools: tuple[int, int] | None = None) -> str:
        """Routes of ours to the backends, or to proxies in front of them."""
        mcp, mcp_2 = tools or (self.mcp, self.mcp_2)
        text = "routes:\n" + proxies.to("raw.ns", f"{scheme}://127.0.0.1:{raw or self.backend.port}")
        for host, port, own in (("tools.ns", mcp, self.mcp), ("tools-2.ns", mcp_2, self.mcp_2)):
            # MCP's servers refuse every Host but their own.
            text += proxies.to(host, f"{scheme}://127.0.0.1:{port}", f", host: '127.0.0.1:{own}'")
        return text

    def compare(self, name: str, alone: Connect, with_us: Connect, unlike: dict[str, tuple] | None = None) -> None:
        """The same checks twice. `unlike` has those that are known to differ: what each must see."""
        one, two = (checks.all_of(connect, self.backend) for connect in (alone, with_us))
        for check, (expect_one, expect_two) in (unlike or {}).items():
            seen = one.pop(check), two.pop(check)
            self.results.check(f"{name} {check}", seen == (expect_one, expect_two), f"saw {seen}")
        self.results.compare(name, one, two)

    def sdk(self, name: str, url: str, env: dict | None = None) -> None:
        """Both lines of the official SDK see what they see direct."""
        for line, host, port, script, mode in (
            ("mcp-1", "tools.ns", self.mcp, CLIENT, []),
            ("mcp-2", "tools-2.ns", self.mcp_2, CLIENT_2, ["auto"]),
        ):
            command = [self.interpreters[line], script, "streamable-http", *mode]
            if line not in self.seen_direct:
                self.seen_direct[line] = self.stage.client(command, f"http://127.0.0.1:{port}/mcp", host)
            proxied = self.stage.client(command, f"{url}/mcp", host, env)
            self.results.compare(f"{name} {line}", self.seen_direct[line], proxied)

    def revived(self, name: str, connect: Connect) -> None:
        """A session outlives its server, and its client keeps the id."""
        host = f"x-kagent-host: tools.ns\r\nhost: 127.0.0.1:{self.mcp}\r\n"
        head = f"POST /mcp HTTP/1.1\r\n{host}accept: application/json, text/event-stream\r\n"
        head += "content-type: application/json\r\n"

        def call(message: dict, token: str | None) -> checks.Answer:
            body = json.dumps({"jsonrpc": "2.0", **message}).encode()
            more = f"mcp-session-id: {token}\r\nmcp-protocol-version: 2025-06-18\r\n" if token else ""
            with connect() as sock:
                sock.settimeout(BOUND)
                sock.sendall(f"{head}{more}content-length: {len(body)}\r\n\r\n".encode() + body)
                return checks.Answer(sock, "POST")

        # The longest that travel in a token: 2 KiB.
        info = {"name": "raw", "version": "1", "title": "x" * 1800}
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": info}
        begun = call({"id": 0, "method": "initialize", "params": params}, None)
        token = begun.fields.get("mcp-session-id")
        if not token:
            return self.results.check(f"{name} session begins", False, (begun.status, begun.body[:300]))
        call({"method": "notifications/initialized"}, token)
        before = call({"id": 1, "method": "tools/list"}, token)
        self.stage.stop(self.serving)
        self.serving = self.stage.start(f"mcp-{self.mcp}-again", self.server, self.mcp)
        after = call({"id": 1, "method": "tools/list"}, token)
        seen = (before.status, after.status, before.body == after.body)
        self.results.check(f"{name} session revived", seen == (200, 200, True), (seen, after.body[:300]))


# === arrangements ===


def sidecar(run: Run) -> None:
    """Our sidecar, with a default route to our own proxy of the cluster."""
    callers = "callers: [{agent: team-a/other, addresses: [10.0.0.7]}]\n"
    inner, admin, _ = proxies.ours_with_admin(run.stage, run.routes() + callers)
    outer = proxies.ours(run.stage, f"defaultRoutes:\n- {{targets: ['127.0.0.1:{inner}'], kagentHost: pass}}\n")
    run.compare("sidecar", plain(run.backend.port), plain(outer))
    for port in (inner, outer):
        seen = ask(plain(port), "GET", "/echo", "x-forwarded-for: 10.0.0.7\r\n").json()["fields"]
        run.results.check(f"sidecar address {port == outer}", seen["x-forwarded-for"] == "127.0.0.1", seen)
    run.sdk("sidecar", f"http://127.0.0.1:{outer}")
    run.revived("sidecar", plain(outer))
    counts = [line for line in many.metrics(admin).splitlines() if "duration_seconds_count{" in line]
    known = [line for line in counts if 'caller="team-a/other"' in line]
    counted = [line for line in counts if 'caller="unknown"' in line]
    run.results.check("sidecar caller is unknown", not known and bool(counted), (known, counted))
    card = ask(plain(outer), "GET", "/.well-known/agent-card.json").json()
    run.results.check("sidecar card", card["url"] == "http://front.example:8000/rpc", card)


def nginx(run: Run) -> None:
    """nginx in front, with nothing but proxy_pass: HTTP/1.0 toward us, buffering, a Host of its own."""
    port = proxies.ours(run.stage, run.routes())
    alone, front = (proxies.nginx(run.stage, to) for to in (run.backend.port, port))
    run.compare("nginx", plain(alone), plain(front))
    run.sdk("nginx", f"http://127.0.0.1:{front}")
    run.revived("nginx", plain(front))


def nginx_newer(run: Run) -> None:
    """As nginx asks by default since 1.29.7: by HTTP/1.1, on connections that stay."""
    port = proxies.ours(run.stage, run.routes())
    newer = 'proxy_http_version 1.1; proxy_set_header Connection "";'
    alone, front = (proxies.nginx(run.stage, to, newer) for to in (run.backend.port, port))
    run.compare("nginx by HTTP/1.1", plain(alone), plain(front))
    run.sdk("nginx by HTTP/1.1", f"http://127.0.0.1:{front}")
    run.revived("nginx by HTTP/1.1", plain(front))


def nginx_tuned(run: Run) -> None:
    """nginx in front, as docs/operations.md says."""
    port = proxies.ours(run.stage, run.routes())
    alone, front = (
        proxies.nginx(run.stage, to, proxies.NGINX_AS_DOCUMENTED, proxies.NGINX_MAP) for to in (run.backend.port, port)
    )
    run.compare("nginx tuned", plain(alone), plain(front))
    undelayed = checks.events(plain(front), run.backend)
    run.results.check("nginx tuned streams", undelayed == "undelayed", undelayed)
    run.sdk("nginx tuned", f"http://127.0.0.1:{front}")
    run.revived("nginx tuned", plain(front))
    card = ask(plain(front), "GET", "/.well-known/agent-card.json").json()
    run.results.check("nginx tuned card", card["url"] == "http://front.example:8000/rpc", card)


def envoy_front(run: Run) -> None:
    port = proxies.ours(run.stage, run.routes())
    for http2, word in ((False, "http1"), (True, "h2c")):
        name = f"envoy in front, {word}"
        alone = proxies.envoy(run.stage, run.backend.port)
        front = proxies.envoy(run.stage, port, http2)
        # Over HTTP/2 Envoy asks for a tunnel by extended CONNECT (RFC 8441), which we do not take.
        unlike = {"websocket": ((101, True), 502)} if http2 else {}
        run.compare(name, plain(alone), plain(front), unlike)
        run.sdk(name, f"http://127.0.0.1:{front}")
        run.revived(name, plain(front))
        seen = ask(plain(front), "GET", "/echo").json()["fields"]
        passed = "x-request-id" in seen and seen.get("x-envoy-expected-rq-timeout-ms", "") == ""
        run.results.check(f"{name} x-request-id", passed, seen)


def envoy_behind(run: Run) -> None:
    alone = proxies.envoy(run.stage, run.backend.port)
    tools = proxies.envoy(run.stage, run.mcp), proxies.envoy(run.stage, run.mcp_2)
    for scheme in ("http", "h2c"):
        name = f"envoy behind, {scheme}"
        port = proxies.ours(run.stage, run.routes(scheme, alone, tools))
        # A tunnel cannot begin on HTTP/2: the request goes on without it (D19).
        unlike = {"websocket": ((101, True), 404)} if scheme == "h2c" else {}
        run.compare(name, plain(alone), plain(port), unlike)
        run.sdk(name, f"http://127.0.0.1:{port}")
        run.revived(name, plain(port))
        answer = ask(plain(port), "GET", "/late")
        run.results.check(f"{name} x-envoy", "x-envoy-upstream-service-time" in answer.fields, answer.fields)
        retrying = proxies.envoy(run.stage, run.backend.port, retries=2)
        port = proxies.ours(run.stage, run.routes(scheme, retrying))
        answer = ask(plain(port), "POST", f"/count/{scheme}", body=b"{}")
        asked = run.backend.counts.get(f"/count/{scheme}")
        run.results.check(f"{name} retries", (answer.status, asked) == (503, 3), (answer.status, asked))
        nowhere = proxies.envoy(run.stage, free_port())
        port = proxies.ours(run.stage, run.routes(scheme, nowhere))
        one, two = (ask(plain(to), "POST", "/rpc", body=b"{}") for to in (nowhere, port))
        same = (one.status, one.body) == (two.status, two.body) and one.status == 503
        run.results.check(f"{name} its own 503", same, (one.body, two.body))


def connect(run: Run) -> None:
    """An egress proxy in front, which the client asks for a tunnel; TLS within it ends at us."""
    cert, key = run.stage.folder / "tls.crt", run.stage.folder / "tls.key"
    options = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext"]
    names = "subjectAltName=IP:127.0.0.1"
    install(["openssl", "req", "-x509", *options, names, "-keyout", key, "-out", cert])
    port = proxies.ours(run.stage, run.routes())
    tls = f"listeners: [{{name: https, address: '127.0.0.1:PORT', tls: {{certFile: {cert}, keyFile: {key}}}}}]\n"
    secure = proxies.ours(run.stage, run.routes() + tls)
    alone = proxies.envoy(run.stage, run.backend.port, connect=True)
    egress = proxies.envoy(run.stage, port, connect=True)
    run.compare("connect", through(alone, run.backend.port), through(egress, port))
    run.revived("connect", through(egress, port))
    egress = proxies.envoy(run.stage, secure, connect=True)
    context = ssl.create_default_context(cafile=cert)
    tunnel = through(egress, secure)
    wrapped = lambda: context.wrap_socket(tunnel(), server_hostname="127.0.0.1")  # noqa: E731
    run.compare("connect and TLS", through(alone, run.backend.port), wrapped)
    env = {"HTTPS_PROXY": f"http://127.0.0.1:{egress}", "SSL_CERT_FILE": str(cert), "NO_PROXY": ""}
    run.sdk("connect and TLS", f"https://127.0.0.1:{secure}", env)


def grpc(run: Run) -> None:
    """A real gRPC client and server, with all of these between them."""
    interpreter = run.interpreters["grpc"]
    server = free_port()
    run.stage.start(f"grpc-{server}", [interpreter, HERE / "grpc_server.py", server], server)
    ours = proxies.ours(run.stage, "routes:\n" + proxies.to("raw.ns", f"h2c://127.0.0.1:{server}"))
    next_proxy = f"defaultRoutes:\n- {{targets: ['h2c://127.0.0.1:{ours}'], kagentHost: pass}}\n"
    behind = proxies.envoy(run.stage, server, http2=True)
    ways = {
        "ours": ours,
        "sidecar": proxies.ours(run.stage, next_proxy),
        "envoy in front": proxies.envoy(run.stage, ours, http2=True),
        "envoy behind": proxies.ours(run.stage, "routes:\n" + proxies.to("raw.ns", f"h2c://127.0.0.1:{behind}")),
    }
    client = [interpreter, HERE / "grpc_client.py"]
    direct = run.stage.client(client, f"127.0.0.1:{server}", "raw.ns")
    for name, port in ways.items():
        run.results.compare(f"grpc {name}", direct, run.stage.client(client, f"127.0.0.1:{port}", "raw.ns"))


def short(run: Run) -> None:
    """One address, as the egress gateway of kagent 1.0 has it: thousands of short connections, and hundreds that wait
    for a pod that starts."""
    many.short_connections(run.results, run.stage)
    many.waiting_for_a_pod(run.results, run.stage)
    many.resets_on_one_connection(run.results, run.stage, run.backend)


ARRANGEMENTS: dict[str, Callable[[Run], None]] = {
    one.__name__: one
    for one in (sidecar, nginx, nginx_newer, nginx_tuned, envoy_front, envoy_behind, connect, grpc, short)
}


def environment() -> str:
    """The interpreter with what requirements.txt pins."""

    def make(place: pathlib.Path) -> None:
        import venv

        venv.create(place, with_pip=True)
        install([place / "bin" / "python", "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"])

    return str(_made("python-fronts", [HERE / "requirements.txt"], make) / "bin" / "python")


def main() -> int:
    program, names = str(pathlib.Path(sys.argv[1]).resolve()), sys.argv[2:] or list(ARRANGEMENTS)
    results, stage = Results("fronts"), Stage(program)
    try:
        interpreters = {name: python(name) for name in ("mcp-1", "mcp-2")} | {"grpc": environment()}
        proxies.envoy_binary()

        def late(*_: object) -> None:
            raise TimeoutError(f"still running after {RUN_SECONDS} s")

        signal.signal(signal.SIGALRM, late)
        signal.alarm(RUN_SECONDS)
        run = Run(stage, results, interpreters)
        for name in names:
            began = time.monotonic()
            try:
                ARRANGEMENTS[name](run)
            except (AssertionError, OSError, RuntimeError, subprocess.SubprocessError) as error:
                traceback.print_exc()
                results.check(f"{name} ran", False, f"{type(error).__name__}: {error}")
            print(f"# {name}: {time.monotonic() - began:.0f} s", flush=True)
    except Exception as error:  # whatever it was, the suite did not do what it is for
        traceback.print_exc()
        results.check("ran", False, f"{type(error).__name__}: {error}")
    finally:
        stage.close()
    print(f"{results.count - results.failed} passed, {results.failed} failed")
    return 1 if results.failed or not results.count else 0


sys.exit(main())
