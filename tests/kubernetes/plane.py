"""The control plane: etcd, kube-apiserver, kube-controller-manager and, on wish, kmcp's controller.

`with Plane(...) as plane` gives a server that answers, `plane.api` for its admin, `plane.kubectl(...)`, and
`plane.kubeconfig`. Everything lies in one temporary folder and ends with the block. It needs no network but
the address it is given; pods are `kubelet.py`'s matter.
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile

import build
from api import Api, ApiError, until

ADMIN = "admin-of-the-test"
SERVICES = ("10.96.0.0/16", "fd00:96::/112")
CONTROLLERS = (
    "deployment-controller", "replicaset-controller", "statefulset-controller", "endpointslice-controller",
    "endpointslice-mirroring-controller", "serviceaccount-controller", "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller", "namespace-controller", "garbage-collector-controller",
    "disruption-controller", "horizontal-pod-autoscaler-controller",
    # The API server's own proxy, by which doctor asks for cards, reads Endpoints.
    "endpoints-controller",
)  # fmt: skip
ROOT = build.ROOT


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Plane:
    """One control plane at `address`, an address of this machine that pods can reach."""

    def __init__(self, address: str = "127.0.0.1", kmcp: bool = False, controllers: tuple[str, ...] = CONTROLLERS) -> None:
        self.address, self.with_kmcp, self.controllers = address, kmcp, controllers
        names = [name for name in build.PLANE if name != "kmcp" or kmcp]
        self.programs = build.programs(*names)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kagent-proxy-plane-"))
        self.folder.chmod(0o755)
        self.running: dict[str, subprocess.Popen] = {}
        self.etcd_port, self.port, self.peer_port = free_port(), free_port(), free_port()
        self.kubeconfig = self.folder / "admin.kubeconfig"
        self.authority = self.folder / "ca.crt"

    def __enter__(self) -> "Plane":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        key = self.folder / "service-account.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True, timeout=60)
        (self.folder / "tokens.csv").write_text(f'{ADMIN},admin,admin,"system:masters"\n')
        self.run_etcd()
        self.run_server()
        self.trust()
        self.api = Api(self.address, self.port, ADMIN, str(self.authority))
        self.wait_ready()
        self.run_controllers()
        until(lambda: self.api.get("v1", "ServiceAccount", "default", "default"), 60, "controllers work")
        if self.with_kmcp:
            self.start_kmcp()

    def run(self, name: str, program: str, *arguments: str, **env: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen(
                [str(self.programs[program]), *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **env},
                cwd=self.folder,
            )

    def run_etcd(self) -> None:
        clients, peers = f"http://127.0.0.1:{self.etcd_port}", f"http://127.0.0.1:{self.peer_port}"
        self.run(
            "etcd", "etcd", f"--data-dir={self.folder}/etcd", f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}", f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}",
            "--log-level=error", "--unsafe-no-fsync",
        )  # fmt: skip

    def run_server(self, *more: str) -> None:
        """The certificate it signs for itself covers our address and `kubernetes.default`."""
        key = self.folder / "service-account.key"
        self.run(
            "kube-apiserver", "kube-apiserver", f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--service-cluster-ip-range={','.join(SERVICES)}", "--bind-address=0.0.0.0",
            f"--advertise-address={self.address}", f"--secure-port={self.port}",
            f"--cert-dir={self.folder}/certificates", f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}", *more,
        )  # fmt: skip

    def trust(self) -> None:
        """Writes the authority that the server made, the last of its file, and the admin's kubeconfig."""
        made = self.folder / "certificates" / "apiserver.crt"
        until(lambda: self.alive() and made.exists() and made.read_text().count("-----END") == 2, 60, self.logs)
        begin = "-----BEGIN CERTIFICATE-----"
        self.authority.write_text(begin + made.read_text().split(begin)[-1])
        self.kubeconfig.write_text(self.kubeconfig_for(ADMIN))

    def kubeconfig_for(self, token: str) -> str:
        return (
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n"
            f"clusters: [{{name: test, cluster: {{server: 'https://{self.address}:{self.port}', "
            f"certificate-authority: '{self.authority}'}}}}]\n"
            f"users: [{{name: test, user: {{token: {token}}}}}]\n"
            "contexts: [{name: test, context: {cluster: test, user: test}}]\n"
        )

    def wait_ready(self, seconds: float = 120) -> None:
        until(lambda: self.alive() and self.api.request("GET", "/readyz"), seconds, self.logs)

    def alive(self) -> bool:
        """Whether all that was started runs; a part that ended is an error at once."""
        for name, process in self.running.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} ended with {process.returncode}: {self.logs()}")
        return True

    def run_controllers(self) -> None:
        self.run(
            "kube-controller-manager", "kube-controller-manager", f"--kubeconfig={self.kubeconfig}",
            f"--root-ca-file={self.authority}", f"--controllers={','.join(self.controllers)}",
            f"--service-account-private-key-file={self.folder}/service-account.key",
            "--leader-elect=false", f"--secure-port={free_port()}", f"--cert-dir={self.folder}/controllers",
            # The default of 20 requests a second would make rollouts slow for no reason of ours.
            "--kube-api-qps=200", "--kube-api-burst=400",
        )  # fmt: skip

    def start_kmcp(self) -> None:
        """Its CRD has to be there, or it waits for ten seconds and longer."""
        self.programs |= build.programs("kmcp")
        self.run(
            "kmcp", "kmcp", "--metrics-bind-address=0", f"--health-probe-bind-address=127.0.0.1:{free_port()}",
            KUBECONFIG=str(self.kubeconfig),
        )  # fmt: skip

    def restart_server(self, between=lambda: None) -> None:
        """Kills the API server as a crash would, and starts it again after `between`."""
        self.kill("kube-apiserver")
        between()
        self.run_server()
        self.wait_ready()

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    def compact(self) -> None:
        """Makes etcd forget all but the newest revision, so that older watches cannot resume there."""
        import base64
        import json
        import urllib.request

        def call(path: str, body: dict) -> dict:
            url = f"http://127.0.0.1:{self.etcd_port}/v3/kv/{path}"
            with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=30) as answer:
                return json.load(answer)

        key = base64.b64encode(b"/").decode()
        newest = call("range", {"key": key, "limit": 1})["header"]["revision"]
        call("compaction", {"revision": newest, "physical": True})

    def kubectl(self, *arguments: str, text: str | None = None, fails: bool = False) -> str:
        """Runs kubectl as the admin; what it prints, or with `fails` what it complains."""
        command = [str(self.programs["kubectl"]), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300)
        if fails:
            assert done.returncode != 0, f"kubectl {arguments} worked: {done.stdout}"
            return done.stderr
        assert done.returncode == 0, f"kubectl {arguments}: {done.stderr[-2000:]}"
        return done.stdout

    def apply(self, *things: dict) -> list[dict]:
        """Applies objects in order, each kind waited for until the server serves it."""
        return [self.applied(thing) for thing in things]

    def applied(self, thing: dict) -> dict:
        try:
            made = self.api.apply(thing)
        except ApiError as error:
            raise AssertionError(f"{thing['kind']} {thing['metadata']['name']}: {error}") from error
        if thing["kind"] == "CustomResourceDefinition":
            versions = [v["name"] for v in thing["spec"]["versions"] if v["served"]]
            for version in versions:
                wanted = f"{thing['spec']['group']}/{version}", thing["spec"]["names"]["kind"]
                until(lambda w=wanted: self.api.list(*w) is not None, 60, f"{wanted} is served")
        if thing["kind"] == "Namespace":
            name = thing["metadata"]["name"]
            until(lambda: self.api.get("v1", "ServiceAccount", name, "default"), 60, f"namespace {name}")
        return made

    def logs(self) -> str:
        """The last of every log, for an error."""
        lines = []
        for log in sorted(self.folder.glob("*.log")):
            lines += [f"--- {log.stem}", *log.read_text(errors="replace").splitlines()[-8:]]
        return "\n".join(lines)

    def stop(self) -> None:
        # Clients first: the API server waits for its watches.
        for name in reversed(list(self.running)):
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)
