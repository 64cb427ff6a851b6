#!/usr/bin/env python3
"""The image, built from the Dockerfile and run as the chart runs it.

Usage: image.py. Needs root and apt, from which it installs buildah, podman, runc, mmdebstrap and tmux. No registry
is asked: both bases are made here under their own names from Debian's packages, with the Rust toolchain of
this machine in the first. The Dockerfile gets both names with their digests, as RELEASING.md tells a release.
The build keeps what it compiled of other crates under `.work/`; our own is compiled each time.
What it shows: the container runs as 65532 with a read-only file system, no capabilities and no new
privileges; it has no shell; it relays to a backend on loopback; `/readyz` answers; `top` and `tap` run in it beside
the proxy, in a terminal, as with `kubectl exec -it`, and show its calls; SIGTERM drains it and it ends with 0. Stops by
itself.
"""

import http.client
import http.server
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests" / "terminal"))

from run import Terminal  # noqa: E402  that of the tests of `top` and `tap`

WORK = ROOT / ".work" / "image"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
NAME = f"localhost/kagent-proxy-test:{os.getpid()}"
PACKAGES = ("buildah", "podman", "runc", "mmdebstrap", "tmux")
SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
# A first build on two cores beside other work; later ones take a quarter.
BUILD_SECONDS = 2400
SECONDS = 60
# Lower than any machine's: podman's own are higher, and a sandbox forbids raising one.
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=512:512"]
# No user namespaces, no cgroup manager and no network of its own: what a sandbox allows.
STORE = ["--root", str(WORK / "store"), "--runroot", str(WORK / "run"), "--storage-driver", "vfs"]
PODMAN = ["podman", *STORE, "--cgroup-manager", "cgroupfs", "--runtime", "runc"]


def run(*command: str, seconds: float = SECONDS, **more) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, **more)
    if done.returncode != 0:
        sys.exit(f"not ok {' '.join(command[:3])} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def base(argument: str) -> str:
    """The name of a base, as the Dockerfile has it."""
    prefix = f"ARG {argument}="
    return next(line.removeprefix(prefix) for line in DOCKERFILE.splitlines() if line.startswith(prefix))


def install() -> None:
    if all(map(shutil.which, PACKAGES)):
        return
    run("apt-get", "update", "-qq", seconds=300)
    run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *PACKAGES, seconds=600)


def stand_in(name: str, stem: str, variant: str, packages: list[str], *config: str) -> str:
    """An image under this name, made of Debian's packages. Returns the name with the digest, as a release pins it."""
    # Made once for each list of packages.
    tree = WORK / f"{stem}-{zlib.crc32(' '.join(packages).encode()):x}.tar"
    release = dict(line.split("=", 1) for line in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in line)
    if not tree.exists():
        made = tree.with_suffix(".new.tar")
        sources = next(path for path in SOURCES if os.path.exists(path))
        run("mmdebstrap", f"--variant={variant}", f"--include={','.join(packages)}", "--skip=check/empty",
            release["VERSION_CODENAME"], str(made), sources, seconds=900)
        made.rename(tree)
    container = run("buildah", *STORE, "from", "scratch").strip()
    run("buildah", *STORE, "add", container, str(tree), "/", seconds=300)
    # Its post-install script, which extracting does not run, would make it.
    run("buildah", *STORE, "add", container, "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt")
    run("buildah", *STORE, "config", *config, container)
    run("buildah", *STORE, "commit", "--rm", container, name, seconds=300)
    digest = run("buildah", *STORE, "inspect", "--type", "image", "--format", "{{.FromImageDigest}}", name).strip()
    return f"{name}@{digest}"


def build() -> None:
    toolchain = run("rustc", "--print", "sysroot", cwd=ROOT).strip()
    cargo = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))
    target = WORK / "target"
    target.mkdir(parents=True, exist_ok=True)
    # Cargo goes by the times of files, and takes a source that changed while the last build ran for one that it has seen.
    for seen in (target / "shipped" / "release" / ".fingerprint").glob("kagent-proxy-*"):
        shutil.rmtree(seen)
    rust = stand_in(
        base("RUST"), "rust", "apt", ["gcc", "g++", "libc6-dev", "make", "xz-utils", "ca-certificates"],
        "--env", "PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin", "--env", "CARGO_HOME=/usr/local/cargo",
    )  # fmt: skip
    runtime = stand_in(
        base("BASE"), "runtime", "extract", ["base-files", "libc6", "libgcc-s1", "netbase", "tzdata"],
        "--user", "65532:65532",
    )  # fmt: skip
    volumes = [f"{toolchain}:/usr/local/rust:ro", f"{target}:/src/target:rw"]
    volumes += [f"{cargo / name}:/usr/local/cargo/{name}:rw" for name in ("registry", "config.toml") if (cargo / name).exists()]
    run("buildah", *STORE, "bud", "--isolation", "chroot", "--network", "host", "--pull-never", "--layers=false",
        "--build-arg", f"RUST={rust}", "--build-arg", f"BASE={runtime}",
        *(f"--volume={volume}" for volume in volumes), "-t", NAME, ".", cwd=ROOT, seconds=BUILD_SECONDS)


class Backend(http.server.BaseHTTPRequestHandler):
    """Says which host it was asked for, and has two tools, of which one fails."""

    def do_GET(self) -> None:
        self.answer({"host": self.headers["host"], "via": self.headers["via"]})

    def do_POST(self) -> None:
        call = json.loads(self.rfile.read(int(self.headers["content-length"])))
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in ("add", "break")]
        used = {"content": [], "isError": call["params"].get("name") == "break"}
        result = {"tools": tools} if call["method"] == "tools/list" else used
        self.answer({"jsonrpc": "2.0", "id": call["id"], "result": result})

    def answer(self, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    return ask(port, "GET", path, None, headers)


def ask(port: int, method: str, path: str, body: bytes | None, headers: dict) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def until_ready(port: int, podman: subprocess.Popen) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if podman.poll() is not None:
            sys.exit(f"not ok the container ended with {podman.returncode}: {podman.stderr.read()}")
        try:
            if get(port, "/readyz")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("not ok the container is not ready")


def call(port: int, method: str, **params: str) -> None:
    """A call of MCP, by a client that no Agent is."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    headers = {"content-type": "application/json", "accept": "application/json", "x-kagent-host": "helper.team-a"}
    status, answer = ask(port, "POST", "/mcp", body, headers)
    assert status == 200, (status, answer)


def container(name: str, *command: str, entrypoint: str | None = None) -> list[str]:
    podman = [*PODMAN, "run", "--rm", "--name", name,
              "--network", "host", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL",
              "--security-opt", "no-new-privileges", "--user", "65532", *LIMITS, "--pull", "never"]
    return [*podman, *(["--entrypoint", entrypoint] if entrypoint else []), NAME, *command]


def shows_calls(name: str, listen: int, admin: int) -> None:
    """`top` and `tap` in the container, each in a terminal of its own, show the calls of the proxy that runs there."""

    def inside(program: str) -> Terminal:
        command = [*PODMAN, "exec", "-it", name, "/usr/local/bin/kagent-proxy", program]
        return Terminal(*command, "--admin", f"http://127.0.0.1:{admin}")

    with inside("tap") as tap, inside("top") as top:
        tap.until("TIME (UTC)", seconds=SECONDS)
        top.until("live", "no calls yet", seconds=SECONDS)
        call(listen, "tools/list")
        for tool in ("add", "break"):
            call(listen, "tools/call", name=tool)
        line = r"unknown +helper\.team-a +mcp +tools/{} +200 +{} +[\d.]+ms"
        lines = [line.format("list +-", "-"), line.format("call +add", "-"), line.format("call +break", "tool_error")]
        screen = tap.until(order=r"\n[^\n]*".join(lines))
        assert screen.count("helper.team-a") == len(lines), screen
        top.until("calls 3", "errors 1", order=r"unknown +helper\.team-a +mcp +\w+ +3 +1 ")
        top.keys("2")
        for tool, errors in (("add", 0), ("break", 1)):
            top.until(order=rf"{tool} +tools/call +helper\.team-a +unknown +\S+ +1 +{errors} ")
        tap.keys("C-c")
        tap.given_back(0)
        top.keys("q")
        top.given_back(0)


def serves() -> None:
    backend = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=backend.serve_forever, daemon=True).start()
    listen, admin = free_port(), free_port()
    name = f"kagent-proxy-test-{os.getpid()}"
    command = container(name, "run", "--listen", f"127.0.0.1:{listen}", "--admin", f"127.0.0.1:{admin}", "--route",
                        f"helper.team-a=127.0.0.1:{backend.server_port}")
    podman = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until_ready(admin, podman)
        status, body = get(listen, "/x", **{"x-kagent-host": "helper.team-a"})
        assert status == 200 and "kagent-proxy" in json.loads(body)["via"], body
        pid = run("podman", *STORE, "inspect", "--format", "{{.State.Pid}}", name).strip()
        state = pathlib.Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in state.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["65532"] * 4, fields["Uid"]
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, (fields["CapEff"], fields["CapBnd"])
        assert fields["NoNewPrivs"] == "1"
        # The runtime's own profile of system calls.
        assert fields["Seccomp"] == "2", fields["Seccomp"]
        mounts = pathlib.Path(f"/proc/{pid}/mounts").read_text().splitlines()
        root = next(line.split()[3] for line in mounts if line.split()[1] == "/")
        assert "ro" in root.split(","), root
        shows_calls(name, listen, admin)
        run("podman", *STORE, "kill", "--signal", "TERM", name)
        podman.wait(SECONDS)
        assert podman.returncode == 0, (podman.returncode, podman.stderr.read())
    finally:
        if podman.poll() is None:
            # The container outlives who started it.
            subprocess.run([*PODMAN, "rm", "--force", "--time", "0", name], capture_output=True, timeout=SECONDS)
            podman.wait(SECONDS)
        backend.shutdown()


def has_no_shell() -> None:
    for shell in ("/bin/sh", "/bin/bash", "/usr/bin/dash"):
        done = subprocess.run(container(f"kagent-proxy-shell-{os.getpid()}", "-c", "true", entrypoint=shell),
                              capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 127 and "no such file" in done.stderr.lower(), (shell, done)


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("not ok the image needs root to be built here; run tests/run as root, or leave the topic image out")
    WORK.mkdir(parents=True, exist_ok=True)
    install()
    try:
        build()
        serves()
        has_no_shell()
    finally:
        shutil.rmtree(WORK / "store", ignore_errors=True)
        shutil.rmtree(WORK / "run", ignore_errors=True)
    print("ok")


main()
