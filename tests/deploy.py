#!/usr/bin/env python3
"""The deploy files, rendered as a user renders them, and every property that they promise.

Usage: deploy.py PATH_OF_KAGENT_PROXY. Needs kubectl, or builds kustomize with Go; PyYAML is put into an
environment under `.work/`. No cluster.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYYAML = "PyYAML==6.0.2"
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.5.0"


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


def render() -> list[dict]:
    import yaml

    base = str(ROOT / "deploy" / "kubernetes")
    if shutil.which("kubectl"):
        command = ["kubectl", "kustomize", base]
    else:
        tools = ROOT / ".work" / "bin"
        if not (tools / "kustomize").exists():
            env = {**os.environ, "GOBIN": str(tools)}
            subprocess.run(["go", "install", KUSTOMIZE], check=True, timeout=600, env=env)
        command = [str(tools / "kustomize"), "build", base]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def seconds(text: str) -> int:
    parts = re.findall(r"(\d+)([hms])", text)
    assert parts and "".join(n + unit for n, unit in parts) == text, text
    return sum(int(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in parts)


def restricted(pod: dict) -> None:
    """The restricted Pod Security Standard, and what we promise besides."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for forbidden in ("hostNetwork", "hostPID", "hostIPC"):
        assert not pod.get(forbidden), forbidden
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} == {"configMap"}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert not any("hostPort" in port for port in container["ports"])
        assert container["resources"]["requests"] and "memory" in container["resources"]["limits"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def main() -> None:
    import yaml

    objects = {(o["kind"], o["metadata"]["name"]): o for o in render()}
    assert all(o["metadata"]["namespace"] == "kagent" for o in objects.values())
    deployment = objects["Deployment", "kagent-proxy"]["spec"]
    pod = deployment["template"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    restricted(pod)
    container = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert {c["topologyKey"] for c in pod["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}, probe

    # Everything that selects pods selects these.
    for key in (("Service", "kagent-proxy"), ("Service", "kagent-proxy-metrics")):
        assert objects[key]["spec"]["selector"].items() <= labels.items(), key
        for port in objects[key]["spec"]["ports"]:
            assert port["targetPort"] in ports and ports[port["targetPort"]] == port["port"], port
    for kind, path in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        selector = objects[kind, "kagent-proxy"]["spec"][path]["matchLabels"]
        assert selector.items() <= labels.items(), kind
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    allowed = objects["NetworkPolicy", "kagent-proxy"]["spec"]["ingress"][0]["ports"]
    assert {port["port"] for port in allowed} == set(ports)
    assert objects["ServiceAccount", "kagent-proxy"]["automountServiceAccountToken"] is False

    # The mounted configuration is the documented one, valid, and fits ports and grace period.
    data = objects["ConfigMap", "kagent-proxy"]["data"]
    assert list(data) == ["config.yaml"]
    assert data["config.yaml"] == (ROOT / "config" / "kubernetes.yaml").read_text()
    mount = container["volumeMounts"][0]["mountPath"]
    assert container["args"] == ["run", "--config", f"{mount}/config.yaml"]
    checked = subprocess.run(
        [sys.argv[1], "check", "--config", ROOT / "deploy" / "kubernetes" / "config.yaml"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert checked.returncode == 0, checked.stdout
    config = yaml.safe_load(data["config.yaml"])
    assert config["listeners"][0]["address"].endswith(f":{ports['http']}")
    assert config["admin"]["address"].endswith(f":{ports['admin']}")
    drain = seconds(config["drain"]["lag"]) + seconds(config["drain"]["deadline"])
    assert pod["terminationGracePeriodSeconds"] > drain, drain
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < seconds(config["drain"]["lag"])

    # What the image would be, as far as a text can say it.
    image = (ROOT / "Dockerfile").read_text()
    toolchain = re.search(r'rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text()).group(1)
    assert f"FROM rust:{toolchain}-bookworm" in image
    assert f"USER {pod['securityContext']['runAsUser']}:" in image
    assert "--no-default-features --features jemalloc" in image
    print("ok")


with_yaml()
main()
