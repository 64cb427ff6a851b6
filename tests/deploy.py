#!/usr/bin/env python3
"""The deploy files, rendered as users render them, and every property that they promise.

Usage: deploy.py PATH_OF_KAGENT_PROXY. Needs Go, which builds Helm and, where there is no kubectl, kustomize;
PyYAML is put into an environment under `.work/`. No cluster: whether an API server takes the objects is for
`tests/kubernetes/`. Kustomize bases and the Dockerfile here, the chart in `deploy_chart.py`.
"""

import re
import sys

from deploy_chart import chart
from deploy_promises import promises
from deploy_tools import ROOT, kustomized, with_yaml


def kustomize(binary: str) -> None:
    """The whole cluster, then chosen namespaces."""
    objects = kustomized("kubernetes")
    whole = promises(objects, binary, [])
    assert {o["metadata"].get("namespace", "kagent") for o in objects} == {"kagent"}
    assert whole.deployment["spec"]["replicas"] >= 2
    assert whole.file == (ROOT / "config" / "kubernetes.yaml").read_text()
    assert len(whole.all("NetworkPolicy")) == len(whole.all("PodDisruptionBudget")) == 1

    chosen = promises(kustomized("kubernetes-namespaced"), binary, ["kagent", "team-a"])
    assert not chosen.all("ClusterRole"), "nothing of the cluster's own"
    assert chosen.pod == whole.pod
    del chosen.config["discovery"]["namespaces"]
    assert chosen.config == whole.config


def image() -> None:
    """What the image would be, as far as a text can say it."""
    text = (ROOT / "Dockerfile").read_text()
    cargo = (ROOT / "Cargo.toml").read_text()
    toolchain = re.search(r'channel = "([\d.]+)"', (ROOT / "rust-toolchain.toml").read_text()).group(1)
    assert f"ARG RUST=docker.io/library/rust:{toolchain}-bookworm\n" in text and "FROM ${RUST} AS build\n" in text
    assert "USER 65532:65532" in text
    # Every feature of the program but the demo.
    everything = re.search(r"^default = \[(.*)\]$", cargo, re.MULTILINE).group(1)
    features = [name.strip(' "') for name in everything.split(",")]
    features.remove("demo")
    build = (ROOT / "benches" / "pgo" / "build.sh").read_text()
    assert "bash benches/pgo/build.sh" in text
    assert f"--no-default-features --features {','.join(features)} " in build, features


def main() -> None:
    binary = sys.argv[1]
    kustomize(binary)
    chart(binary)
    image()
    print("ok")


with_yaml()
main()
