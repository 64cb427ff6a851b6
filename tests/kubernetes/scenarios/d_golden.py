"""What the real kagent controller wrote for its agents, routed: ../shared/golden.

Every resource of the record is applied, with the Services and Deployments that the controllers made; pods are
ours. Then each x-kagent-host entry of each agent's configuration has to reach the pod and port that it means.
Without the record nothing is shown, and that is said.
"""

import urllib.parse

import crds
from secure import authority, secret, served
from world import World, scenario, service

RECORD = "kagent-0.10.0-rc3"
# Services that the record's tool servers mean but does not hold, and what the header and path mean.
TOOLS = {
    "short": ([{"name": "mcp", "port": 3000}, {"name": "metrics", "port": 3001}], 3000),
    "fqdn": ([{"name": "sse", "port": 8080}, {"name": "other", "port": 8081}], 8080),
    "noport": ([{"name": "web", "port": 80}, {"name": "other", "port": 8081}], 80),
    "tls": ([{"name": "mcp", "port": 8443}, {"name": "other", "port": 8444}], 8443),
}
PORTS = {
    "short": 3000,
    "fqdn": 8080,
    "noport": 80,
    "tls": 8443,
    "plain-mcp": 9090,
    "kmcp-one": 3001,
    "kmcp-stdio": 3002,
}
AGENT_PORT = 8080


def backend(name: str, namespace: str, labels: dict, image: str) -> dict:
    container = {
        "name": "main",
        "image": image,
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": int(image.split(":")[1].split("-")[0])}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def apply_record(world: World) -> None:
    for space in ("kagent", "ml", "tools"):
        world.namespace(space)
    made: dict[tuple[str, str], str] = {}
    for thing in crds.golden(f"{RECORD}/applied.yaml"):
        # Its own kind has no definition in this plane where only ours are at hand, and no part in routing.
        if thing["kind"] == "ModelConfig":
            continue
        if thing["kind"] == "MCPServer":
            thing["spec"]["deployment"]["image"] = f"backend:{thing['spec']['deployment']['port']}"
        [applied] = world.apply(thing)
        made[applied["kind"], applied["metadata"]["name"]] = applied["metadata"]["uid"]
    for thing in crds.golden(f"{RECORD}/deployments.json"):
        thing |= {"apiVersion": "apps/v1", "kind": "Deployment"}
        thing["metadata"]["ownerReferences"] = owners(thing, made)
        spec = thing["spec"]["template"]["spec"]
        # Its configuration Secret is not in the record, nor is its service account.
        spec["containers"][0] |= {"image": f"backend:{AGENT_PORT}", "volumeMounts": []}
        spec |= {"volumes": [], "serviceAccountName": "default", "serviceAccount": "default"}
        world.apply(thing)
    for thing in crds.golden(f"{RECORD}/services.json"):
        if thing["metadata"]["namespace"] == "default":
            continue
        thing |= {"apiVersion": "v1", "kind": "Service"}
        thing["metadata"]["ownerReferences"] = owners(thing, made)
        for key in ("clusterIP", "clusterIPs"):
            thing["spec"].pop(key, None)
        world.apply(thing)
    world.apply(backend("plain-mcp", "ml", {"app": "plain"}, "backend:9090"))
    for name, (ports, number) in TOOLS.items():
        others = "-".join(str(p["port"]) for p in ports if p["port"] != number)
        made = backend(name, "tools", {"app": name}, f"backend:{number}-{others}")
        if name in secured():
            # Of an authority that nobody knows and for another name: the record's tool server says disableVerify.
            world.apply(secret("tools", name, authority("elsewhere.invalid")))
            made = served(made, name)
        world.apply(service("tools", name, *ports), made)


def owners(thing: dict, made: dict) -> list[dict]:
    """Its owners, as they are called in this cluster."""
    listed = thing["metadata"].get("ownerReferences", [])
    return [owner | {"uid": made[owner["kind"], owner["name"]]} for owner in listed]


def secured() -> set[str]:
    """The tool servers whose URL is https. To an agent the controller writes the proxy's plain HTTP for them."""
    applied = crds.golden(f"{RECORD}/applied.yaml")
    return {
        thing["metadata"]["name"]
        for thing in applied
        if thing["kind"] == "RemoteMCPServer" and thing["spec"]["url"].startswith("https://")
    }


def entries() -> list[tuple[str, str, str]]:
    """(agent, host, path) of every entry that leads to the proxy."""
    found = []
    for name, written in crds.golden(f"{RECORD}/written.json").items():
        config = written["config.json"]
        for tool in config.get("http_tools", []) + config.get("sse_tools", []):
            params = tool["params"]
            if host := params["headers"].get("x-kagent-host"):
                found.append((name, host, urllib.parse.urlsplit(params["url"]).path))
        for other in config.get("remote_agents", []):
            path = urllib.parse.urlsplit(other["url"]).path or "/"
            found.append((name, other["headers"]["x-kagent-host"], path))
    return found


@scenario
def golden_entries(world: World) -> None:
    """kubernetes: every entry that the real kagent controller wrote gets to its pod and port, with TLS where meant"""
    if crds.golden(f"{RECORD}/written.json") is None:
        world.notes.append("# ../shared/golden is not there: the record of the real controller is not shown")
        return
    world.definitions()
    apply_record(world)
    if "kmcp" not in world.plane.running:
        world.plane.start_kmcp()
    proxy = world.proxy()
    listed = entries()
    assert len(listed) >= 12, listed
    https, with_tls = secured(), 0
    for agent, host, path in listed:
        name = host.split(".")[0]
        number = PORTS.get(name, AGENT_PORT)
        # From the pod of the agent that this entry was written for.
        caller = world.kubelet.pod(agent.split("/")[1])
        saw = proxy.routed(host, path, name, number, seconds=30, caller=caller)
        query = "?x=1" if name == "fqdn" else ""
        assert saw["path"] == path + query, (host, saw)
        assert saw["tls"] is (name in https), (host, saw)
        with_tls += saw["tls"]
        for card in ("/.well-known/agent-card.json",) if path == "/" else ():
            proxy.routed(host, card, name, number, caller=caller)
    assert with_tls, f"no entry of {https} was there"
    world.notes.append(f"# {len(listed)} entries of {len({a for a, _, _ in listed})} agents, {with_tls} of them to TLS")
