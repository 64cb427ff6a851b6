"""Builds the programs of the control plane from Go modules, or finds them built before.

Versions are pinned by `plane/go.mod`, `plane/kmcp/go.mod` and the constants here, Helm's by `deploy_tools.py`.
The programs go to `.work/kubernetes-<hash of all that>/bin` of the checkout, or come from the folder that the
environment variable KAGENT_PROXY_PLANE_BIN names. Whoever calls `programs` gets paths, or a `Missing` that says
in one sentence what to install. It does not know what the programs are for.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "clients")]
sys.path.append(str(ROOT / "tests" / "chaos"))  # last: some files there have names of ours

import harness  # noqa: E402
import kinds  # noqa: E402  servers and clients of every SDK
from deploy_tools import HELM  # noqa: E402  one version for both

KUBERNETES = "v1.36.3"
# Without it clients read v0.0.0.
STAMP = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in (
        ("gitVersion", KUBERNETES),
        ("gitMajor", "1"),
        ("gitMinor", KUBERNETES.split(".")[1]),
    )
)
# Program: the module it is built in, its package. Helm is built as `go install` builds it.
PACKAGES = {
    "etcd": ("plane", "./etcd"),
    "kube-apiserver": ("plane", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": ("plane", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kubectl": ("plane", "k8s.io/kubernetes/cmd/kubectl"),
    "kmcp": ("plane/kmcp", "github.com/kagent-dev/kmcp/cmd"),
    "helm": (None, HELM),
}
PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kmcp", "kubectl")
SECONDS = 3600
# The Python SDK of MCP, as the client suites pin it: servers with sessions.
ENVIRONMENTS = ("mcp-1",)
# Of each server that keeps a book, the environment that it runs in.
BOOKS = {"tools": "mcp-1", "tools_2": "mcp-2", "agent": "a2a-grpc", "agent_0": "a2a-0", "agent_grpc": "a2a-grpc"}


class Missing(Exception):
    """What this machine lacks, in one sentence."""


def digest() -> str:
    state = hashlib.sha256(f"{HELM} {STAMP}".encode())
    for name in ("plane/go.mod", "plane/go.sum", "plane/etcd/main.go", "plane/kmcp/go.mod", "plane/kmcp/go.sum"):
        state.update((HERE / name).read_bytes())
    return state.hexdigest()[:12]


def folder() -> pathlib.Path:
    """Where the programs of these versions lie."""
    return ROOT / ".work" / f"kubernetes-{digest()}" / "bin"


def programs(*names: str) -> dict[str, pathlib.Path]:
    """A path for each name, built if need be."""
    return {name: found(name) or built(name) for name in names or PLANE}


def found(name: str) -> pathlib.Path | None:
    given = os.environ.get("KAGENT_PROXY_PLANE_BIN")
    for place in ([pathlib.Path(given)] if given else []) + [folder()]:
        if (place / name).is_file():
            return place / name
    # kubectl only talks to the server; any recent one will do.
    if name == "kubectl" and (path := shutil.which(name)):
        return pathlib.Path(path)
    return None


def built(name: str) -> pathlib.Path:
    if not shutil.which("go"):
        raise Missing(f"Go is missing, which builds {name}: install Go 1.26 or set KAGENT_PROXY_PLANE_BIN.")
    module, package = PACKAGES[name]
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(place):
        if (place / name).is_file():
            return place / name
        made = place / f"{name}.new"
        env = {**os.environ, "CGO_ENABLED": "0"}
        env["GOFLAGS"] = f"{env.get('GOFLAGS', '')} -p=2 -buildvcs=false".strip()
        if module is None:
            env["GOBIN"] = str(place / "new")
            command, where = ["go", "install", "-ldflags=-s -w", package], place
        else:
            # kmcp's list of versions is not served, so nothing may ask for it: -mod=mod reads go.mod alone.
            command = ["go", "build", "-mod=mod", f"-ldflags=-s -w {STAMP}", "-o", str(made), package]
            where = HERE / module
        done = subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode != 0:
            raise Missing(f"{name} does not build ({' '.join(command)}): {done.stderr[-2000:]}")
        (place / "new" / name if module is None else made).rename(place / name)
    return place / name


def python(name: str) -> str:
    """The interpreter of an environment of the client suites; made where there is a network."""
    try:
        return harness.python(name)
    except RuntimeError as error:
        raise Missing(f"The Python environment {name} cannot be made: {error}") from error


def sdks() -> None:
    """What the servers and clients of `tests/chaos` stand on; made where there is a network."""
    try:
        harness.python("adk")
        for kind in kinds.SERVERS:
            chaos_server(kind, "0", "none", "none")
        for kind in kinds.AGENTS:
            kinds.agent(kind, "none", "none")
    except (OSError, RuntimeError) as error:
        raise Missing(f"The SDKs of tests/chaos cannot be made: {error}") from error


def eras() -> dict[str, list[str]]:
    """Clients that take the orders of `tests/clients/eras.py`, by SDK; made where there is a network."""
    try:
        python = [harness.python("mcp-2"), str(harness.HERE / "python" / "client_eras.py")]
        return {"python-2": python, "go-1-8": [harness.go("go_eras"), "client"]}
    except (OSError, RuntimeError) as error:
        raise Missing(f"The SDKs of MCP's newest revision cannot be made: {error}") from error


def modules() -> pathlib.Path:
    """The folder that has MCP's TypeScript SDK, as `tests/chaos` pins it; made where there is a network."""
    try:
        return harness.node(ROOT / "tests" / "chaos" / "node")
    except (OSError, RuntimeError) as error:
        raise Missing(f"The TypeScript SDK cannot be installed: {error}") from error


def books() -> None:
    """What the servers that keep books stand on, and their clients."""
    modules()
    for environment in set(BOOKS.values()):
        python(environment)


def ledger(kind: str, port: str, book: str) -> list[str]:
    """The command of a server that keeps a book of its calls."""
    place = HERE / "ledger"
    if kind == "batches":
        return ["node", str(place / "tools.mjs"), port, book, str(modules())]
    return [python(BOOKS[kind]), "-I", str(place / f"{kind}.py"), port, book]


def chaos_server(kind: str, port: str, pod: str, marks: str) -> list[str]:
    """The command of a server of `tests/chaos` in a pod."""
    return [str(part) for part in kinds.server(kind, int(port), pod, pathlib.Path(marks), "404")]


@contextlib.contextmanager
def one_at_a_time(place: pathlib.Path):
    with open(place / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    for program, path in programs(*sys.argv[1:]).items():
        print(f"{program} {path}")
