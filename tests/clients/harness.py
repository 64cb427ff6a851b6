"""What the client suites stand on: pinned environments, processes, the proxy, and the lines of results.

Knows no SDK and no protocol. A suite is a file in `suites/` that calls [`run_suite`] with two functions:
one that makes its environments and returns them, one that starts servers and clients and compares what
they saw. Everything has a time limit and listens on loopback only. Processes are ended by their id.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
import venv
from collections.abc import Callable, Iterator

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / ".work"
# What servers and clients together may take, once the environments stand.
RUN_SECONDS = 180
# One installation, from a cold cache.
INSTALL_SECONDS = 900


# === environments ===


def _made(name: str, pins: list[pathlib.Path], make: Callable[[pathlib.Path], None]) -> pathlib.Path:
    """A folder under `.work` made once for each content of `pins`; the lock is for suites side by side."""
    digest = hashlib.sha256(b"\0".join(pin.read_bytes() for pin in pins)).hexdigest()[:12]
    place = WORK / f"{name}-{digest}"
    WORK.mkdir(exist_ok=True)
    with open(WORK / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            shutil.rmtree(place, ignore_errors=True)
            make(place)
            (place / "complete").touch()
    return place


def install(command: list, **options) -> None:
    """Runs one command of an installation; its last words are the reason if it fails."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=INSTALL_SECONDS, **options
    )
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")


def python(name: str) -> str:
    """The interpreter of an environment with what `python/requirements-NAME.txt` pins."""
    pins = HERE / "python" / f"requirements-{name}.txt"

    def make(place: pathlib.Path) -> None:
        venv.create(place, with_pip=True)
        install([place / "bin" / "python", "-m", "pip", "install", "-q", "-r", pins])

    return str(_made(f"python-{name}", [pins], make) / "bin" / "python")


def go(folder: str | pathlib.Path, modfile: str = "go.mod") -> str:
    """The program built from a Go module; the modfile and its `.sum` pin every dependency."""
    source = HERE / folder
    files = sorted(source.glob("*.go")) + [source / modfile, (source / modfile).with_suffix(".sum")]

    def make(place: pathlib.Path) -> None:
        place.mkdir()
        options = ["-mod=readonly", f"-modfile={modfile}", "-o", place / "program"]
        install(["go", "build", *options, "."], cwd=source)

    return str(_made(f"go-{source.name}", files, make) / "program")


def rust(folder: str) -> str:
    """The program built from a Cargo package; its `Cargo.lock` pins every dependency."""
    source = HERE / folder
    files = [*sorted((source / "src").glob("*.rs")), source / "Cargo.toml", source / "Cargo.lock"]

    def make(place: pathlib.Path) -> None:
        target = WORK / f"cargo-{folder}"  # kept, so that a change does not build everything again
        install(["cargo", "build", "-q", "--locked", "--target-dir", target], cwd=source)
        place.mkdir()
        shutil.copy(target / "debug" / "clients", place / "program")

    return str(_made(f"rust-{folder}", files, make) / "program")


def node(folder: str | pathlib.Path) -> pathlib.Path:
    """A folder with the module's scripts, and what its `package-lock.json` pins installed beside them."""
    source = HERE / folder
    lock = [source / "package.json", source / "package-lock.json"]
    files = lock + sorted(source.glob("*.mjs"))

    def make(place: pathlib.Path) -> None:
        place.mkdir()
        for file in files:
            shutil.copy(file, place)
        install(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=place)

    return _made(f"node-{source.name}", files, make)


# === processes ===


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Stage:
    """The processes of one suite; [`close`] ends them all."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kagent-proxy-clients-"))
        self._started: list[subprocess.Popen] = []

    def start(self, name: str, command: list, port: int, env: dict | None = None) -> subprocess.Popen:
        """Starts a server and waits until it listens. Its output is kept, for the reason if it fails."""
        log = self.folder / f"{name}.log"
        with open(log, "w") as out:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
            )
        self._started.append(process)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process
            time.sleep(0.05)  # between two looks at the port
        raise RuntimeError(f"{name} does not listen on {port}: {log.read_text()[-2000:]}")

    def adopt(self, process: subprocess.Popen) -> None:
        """Ends this process too, which somebody else has started."""
        self._started.append(process)

    def stop(self, process: subprocess.Popen) -> None:
        process.kill()
        process.wait(timeout=10)

    def close(self) -> None:
        for process in self._started:
            self.stop(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def proxy(
        self,
        routes: dict[str, int | str | list[int]],
        default: int | None = None,
        env: dict | None = None,
        port: int | None = None,
        admin: int | None = None,
    ) -> "Proxy":
        return Proxy(self, routes, default, env, (port or free_port(), admin or free_port()))

    def client(self, command: list, url: str, host: str, env: dict | None = None) -> dict:
        """Runs `command URL HOST` to its end; what it saw, which it prints as one JSON object."""
        full = [str(part) for part in command] + [url, host]
        environment = None if env is None else {**os.environ, **env}
        done = subprocess.run(full, capture_output=True, text=True, timeout=90, env=environment)
        if done.returncode != 0:
            raise RuntimeError(f"client at {url} ended with {done.returncode}: {done.stderr[-2000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


class Proxy:
    """A running kagent-proxy with static routes to loopback ports, each to one, to several, or to a target's text."""

    def __init__(
        self,
        stage: Stage,
        routes: dict[str, int | str | list[int]],
        default: int | None,
        env: dict | None,
        ports: tuple[int, int],
    ) -> None:
        self.port, admin = ports
        self.url = f"http://127.0.0.1:{self.port}"
        self._admin = f"http://127.0.0.1:{admin}"
        # Another one may have had the port before.
        self._log = stage.folder / f"proxy-{self.port}-{admin}.log"
        command = [stage.program, "run", "--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{admin}"]
        for host, ports in routes.items():
            each = ports if isinstance(ports, list) else [ports]
            targets = [port if isinstance(port, str) else f"127.0.0.1:{port}" for port in each]
            command += ["--route", f"{host}={','.join(targets)}"]
        if default is not None:
            command += ["--default-route", f"127.0.0.1:{default}"]
        command += ["--log-format", "json"]
        self.process = stage.start(self._log.stem, command, self.port, env)

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self._admin}/metrics", timeout=10) as answer:
            return answer.read().decode()

    def requests(self, route: str) -> int:
        """Finished requests of a route, from the metrics."""
        counts = re.findall(rf'kagent_proxy_requests_total\{{route="{route}"[^}}]*\}} (\d+)', self.metrics())
        return sum(map(int, counts))

    def calls(self, route: str) -> dict[tuple[str, str, str], int]:
        """Calls of MCP by method, tool and error, from the metrics."""
        name = "kagent_proxy_mcp_operation_duration_seconds_count"
        counts: dict[tuple[str, str, str], int] = {}
        for labels, count in re.findall(rf'{name}\{{route="{route}",([^}}]*)\}} (\d+)', self.metrics()):
            of = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            key = of["mcp_method_name"], of["gen_ai_tool_name"], of["error_type"]
            counts[key] = counts.get(key, 0) + int(count)
        return counts

    def lines(self) -> list[dict]:
        """The access log so far. Its thread may be behind the metrics: what they count must be in it."""
        deadline = time.monotonic() + 5
        while True:
            counts = re.findall(r"kagent_proxy_requests_total\{[^}]*\} (\d+)", self.metrics())
            lines = self.last_lines()
            if len(lines) >= sum(map(int, counts)) or time.monotonic() > deadline:
                return lines
            time.sleep(0.02)  # between two looks at the log

    def last_lines(self) -> list[dict]:
        """The access log as it is, of a proxy that may have ended."""
        whole = [line for line in self._log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in map(json.loads, whole) if line.get("target") == "access"]


# === results ===


class Results:
    """Prints a line for each check as it is known."""

    def __init__(self, suite: str) -> None:
        self.suite, self.failed, self.count = suite, 0, 0

    def check(self, name: str, good: bool, why: object = "") -> None:
        line = f"{self.suite} {name}"
        text = " ".join(str(why).split())[:1500]
        print(f"ok {line}" if good else f"not ok {line}: {text}", flush=True)
        self.count += 1
        self.failed += not good

    def compare(self, name: str, direct: dict, proxied: dict) -> None:
        """Check by check: what was seen through the proxy is what was seen direct.

        What is not there, or false, has not happened even direct, and two of these prove nothing.
        """
        worked = same = 0
        for key in sorted(direct.keys() | proxied.keys()):
            one, two = direct.get(key), proxied.get(key)
            happened = one is not None and one is not False
            worked, same = worked + happened, same + (happened and one == two)
            self.check(f"{name} {key}", happened and one == two, f"direct {one}, proxied {two}")
        self._measured(name, {"protocol": direct.get("protocol"), "direct": worked, "proxied": same})

    def _measured(self, name: str, counts: dict) -> None:
        """Kept for the table of `matrix.py`, where one is to be written."""
        if into := os.environ.get("KAGENT_PROXY_MEASURED"):
            with open(into, "a") as file:
                file.write(json.dumps({"suite": self.suite, "run": name, **counts}) + "\n")

    def through(self, name: str, proxy: Proxy, route: str, least: int) -> None:
        """The calls were really carried by the proxy; one is counted when its response has ended, which a client need
        not wait for."""
        deadline = time.monotonic() + 5
        while (seen := proxy.requests(route)) < least and time.monotonic() < deadline:
            time.sleep(0.02)  # between two looks at the metrics
        self.check(f"{name} went through", seen >= least, f"{seen} requests of {route}, expected {least}")


@contextlib.contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"still running after {seconds} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    yield
    signal.alarm(0)


def run_suite(name: str, prepare: Callable, run: Callable) -> None:
    """`prepare()` makes environments, `run(results, stage, environments)` checks; then the exit code.

    Any error is a failed check: a suite that cannot be set up has failed.
    """
    results, stage = Results(name), Stage(sys.argv[1])
    try:
        environments = prepare()
        with _limit(RUN_SECONDS):
            run(results, stage, environments)
        results.check("ran", results.count > 0, "it checked nothing")
    except Exception as error:  # whatever it was, the suite did not do what it is for
        traceback.print_exc()
        results.check("ran", False, f"{type(error).__name__}: {error}")
    finally:
        stage.close()
    sys.exit(1 if results.failed else 0)
