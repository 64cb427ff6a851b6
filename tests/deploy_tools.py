"""The tools that render the deploy files, pinned, and what they render.

Puts PyYAML into an environment under `.work/`, builds kustomize (where there is no kubectl) and Helm with Go
into `.work/bin`. It knows no property of what it renders: objects go to `deploy_promises.py`.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "helm" / "kagent-proxy"
TOOLS = ROOT / ".work" / "bin"
PYYAML = "PyYAML==6.0.2"
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.5.0"
HELM = "helm.sh/helm/v4/cmd/helm@v4.3.1"
# Programs that whoever imports this has already: kubectl, helm.
GIVEN: dict[str, str] = {}


def with_yaml() -> None:
    """Goes on in an environment that has PyYAML."""
    place = ROOT / ".work" / "deploy-pyyaml-6.0.2"
    python = place / "bin" / "python"
    if pathlib.Path(sys.prefix) == place:
        return
    if not (place / "complete").exists():
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PYYAML], check=True, timeout=300)
        (place / "complete").touch()
    os.execv(python, [str(python), *sys.argv])


def built(package: str) -> str:
    """The program of a Go package at a version, built once for each version."""
    name, version = package.split("/")[-1].split("@")
    if name.startswith("v"):
        name = package.split("/")[-2]
    place = TOOLS / f"{name}-{version}"
    if not (place / name).exists():
        env = {**os.environ, "GOBIN": str(place)}
        subprocess.run(["go", "install", package], check=True, timeout=900, env=env)
    return str(place / name)


def kustomized(folder: str) -> list[dict]:
    """The objects of a folder below `deploy/`."""
    path = str(ROOT / "deploy" / folder)
    if kubectl := GIVEN.get("kubectl") or shutil.which("kubectl"):
        return documents([kubectl, "kustomize", path])
    return documents([built(KUSTOMIZE), "build", path])


def helm(*arguments: str, values: dict | None = None, kubeconfig=os.devnull) -> subprocess.CompletedProcess:
    """Helm with these arguments and values; how it ended is the caller's to judge."""
    import yaml

    command = [GIVEN.get("helm") or built(HELM), *arguments]
    if values is not None:
        command += ["--values", "-"]
    # No plugin, repository or cluster of the one who runs the tests.
    home = {f"HELM_{name}_HOME": str(ROOT / ".work" / "helm") for name in ("CACHE", "CONFIG", "DATA")}
    return subprocess.run(
        command,
        input=yaml.safe_dump(values or {}),
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **home, "KUBECONFIG": str(kubeconfig)},
    )


def charted(values: dict | None = None, release: str = "kagent-proxy", namespace: str = "kagent") -> list[dict]:
    """The objects that the chart makes of these values."""
    done = helm("template", release, str(CHART), "--namespace", namespace, values=values or {})
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def documents(command: list[str]) -> list[dict]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


def parsed(text: str) -> list[dict]:
    import yaml

    return [document for document in yaml.safe_load_all(text) if document]
