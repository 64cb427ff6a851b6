"""Authorities of tool servers that stand in a Secret: kept through an outage of the API server, followed when changed.

Secrets are not watched but read again every minute, so this takes two.
"""

import time

from api import LOST, until
from secure import authority, secret, served
from world import World, deployment, kagent, scenario, service

SPACE = "vault"
NAME = "sealed"
HOST = f"{NAME}.{SPACE}"
PORT = 8443
AUTHORITIES = "authorities"
# SECRETS_EVERY in src/discovery.rs is 60 s.
READ_AGAIN = 60 + 15
UNREAD = "a CA Secret cannot be read at the moment"


def rights() -> list[dict]:
    """As the chart writes them for `rbac.secrets`: this one name, and no more than `get`."""
    group = "rbac.authorization.k8s.io"
    meta = {"name": "kagent-proxy-secrets", "namespace": SPACE}
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [AUTHORITIES], "verbs": ["get"]}
    role = {"apiGroup": group, "kind": "Role", "name": meta["name"]}
    account = {"kind": "ServiceAccount", "name": "kagent-proxy", "namespace": "kagent"}
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": meta, "roleRef": role, "subjects": [account]},
    ]


def stage(world: World, old: dict[str, str], new: dict[str, str]) -> None:
    """Pods with certificates of two authorities; the Service leads to the old ones, the Secret vouches for them."""
    world.definitions()
    for space in ("kagent", SPACE):
        world.namespace(space)
    spec = {"description": "d", "protocol": "STREAMABLE_HTTP", "url": f"https://{HOST}:{PORT}/mcp"}
    spec["tls"] = {"caCertSecretRef": AUTHORITIES, "caCertSecretKey": "ca.crt"}
    for name, files in (("old", old), ("new", new)):
        world.apply(
            secret(SPACE, name, files, "tls.crt", "tls.key"),
            served(deployment(SPACE, name, f"backend:{PORT}"), name),
            service(SPACE, name, PORT),
        )
    world.apply(
        *rights(),
        secret(SPACE, AUTHORITIES, old, "ca.crt"),
        service(SPACE, NAME, PORT, app="old"),
        kagent("RemoteMCPServer", SPACE, NAME, spec),
    )
    for name in ("old", "new", NAME):
        world.wait_ready(SPACE, name)


@scenario
def authorities_last_and_follow(world: World) -> None:
    """kubernetes: a tool server's CA Secret holds through an outage of the API server, and is followed when it changes"""
    old, new = authority(HOST), authority(HOST)
    stage(world, old, new)
    proxy = world.proxy()
    assert proxy.routed(HOST, "/mcp", "old", PORT)["tls"] is True
    calls = 0

    def serves() -> bool:
        nonlocal calls
        calls += 1
        try:
            status, fields, body = proxy.ask(HOST, "/mcp", "POST", body=b"{}")
        except LOST as error:
            raise AssertionError(f"call {calls} of the outage: {error}") from error
        assert (status, body.get("tls")) == (200, True), (calls, status, fields, body)
        return True

    def log() -> str:
        return proxy.pod.containers[0].log.read_text()

    assert UNREAD not in log()
    with world.relay.refused():
        world.apply(secret(SPACE, AUTHORITIES, new, "ca.crt"))
        until(lambda: serves() and UNREAD in log(), READ_AGAIN, "the Secret is read in vain")
        # Without its connections the proxy has to dial, and to judge the certificate, by what it knew.
        opened = connections(proxy)
        backend = world.kubelet.pod("old")
        backend.kill()
        backend.again()
        proxy.routed(HOST, "/mcp", "old", PORT, seconds=30)
        assert connections(proxy) > opened, "no new connection was judged"
        assert serves()
    began = time.monotonic()
    text = str(proxy.refused(HOST, "/mcp", 502, "connect_failed", seconds=READ_AGAIN))
    followed = time.monotonic() - began
    assert "certificate" in text, text
    world.apply(service(SPACE, NAME, PORT, app="new"))
    assert proxy.routed(HOST, "/mcp", "new", PORT, seconds=30)["tls"] is True
    world.notes.append(f"# {calls} calls in the outage all answered; the Secret was followed {followed:.0f} s after it")


def connections(proxy) -> float:
    found = proxy.metric("kagent_proxy_upstream_connections_total", route=f"{HOST}:{PORT}", event="opened")
    assert found, proxy.admin("/metrics")
    return found
