"""Tool servers with https URLs, static routes beside discovered ones, and dialling the Service's own address."""

import json
import subprocess

from c_routes import agent, agent_service, port, remote, stage
from network import ip
from secure import authority, secret, served
from world import World, deployment, scenario, service


@scenario
def https_tool_servers(world: World) -> None:
    """kubernetes: an https URL is dialled with TLS at its port or 443, and an unknown authority is an error"""
    stage(world)
    unchecked = {"tls": {"disableVerify": True}}
    world.apply(
        secret("tools", "secure", authority("secure.tools")),
        served(deployment("tools", "secure", "backend:443-8443"), "secure"),
        service("tools", "secure", port(443), port(8443)),
        remote("tools", "secure", "https://secure.tools/mcp", **unchecked),
        service("tools", "tls", port(8443), port(8080), app="secure"),
        remote("tools", "tls", "https://tls.tools:8443/mcp", **unchecked),
        service("tools", "strict", port(8443), app="secure"),
        remote("tools", "strict", "https://strict.tools:8443/mcp"),
    )
    world.wait_ready("tools", "secure")
    # Whose word counts: these are of the Services' own namespace.
    proxy = world.proxy()
    for host, number in (("secure.tools", 443), ("tls.tools", 8443)):
        assert proxy.routed(host, "/mcp", "secure", number)["tls"] is True
    text = str(proxy.refused("strict.tools", "/mcp", 502, "connect_failed"))
    assert "certificate" in text, text


@scenario
def static_wins(world: World) -> None:
    """kubernetes: a static route wins over a discovered one, and /routes and explain say where each comes from"""
    stage(world)
    for name in ("fixed", "found"):
        [made] = world.apply(agent("team-a", name))
        world.apply(agent_service(made, "alpha"))
    target = world.kubelet.pod("beta").address
    proxy = world.proxy(routes=[{"match": "fixed.team-a", "targets": [f"http://{target}:9000"]}])
    proxy.routed("found.team-a", "/", "alpha", 8080)
    proxy.routed("fixed.team-a", "/", "beta", 9000)
    proxy.routed("fixed.team-a.svc.cluster.local", "/", "beta", 9000)
    status, text = proxy.admin("/routes")
    assert status == 200 and "fixed.team-a" in text and "found.team-a" in text, text
    assert "static" in text and "discovered" in text, text
    chain = proxy.explain("found.team-a", "/")
    assert "Agent" in chain and proxy.routed("found.team-a", "/", "alpha", 8080), chain
    # The program itself asks the running one, from inside the pod.
    pod = proxy.pod
    command = [world.program, "explain", "--admin", "http://127.0.0.1:9091", "--host", "found.team-a"]
    done = subprocess.run(["ip", "netns", "exec", pod.place.name, *command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and "8080" in done.stdout, (done.stdout, done.stderr)


@scenario
def service_address(world: World) -> None:
    """kubernetes: with `endpoints: service` the Service's own address is dialled"""
    stage(world)
    [made] = world.apply(agent("team-a", "virtual"))
    [applied] = world.apply(agent_service(made, "alpha"))
    address = applied["spec"]["clusterIP"]
    proxy = world.proxy(discovery={"endpoints": "service"})
    # There is no kube-proxy: the address is beta's here, which no endpoint of the Service is.
    pods = list(world.kubelet.pods.values())
    beta = next(p for p in pods if p.namespace == "team-a" and p.pod_name.startswith("beta"))
    ip("-n", beta.place.name, "addr", "replace", f"{address}/32", "dev", "lo")
    ip("-n", proxy.pod.place.name, "route", "replace", f"{address}/32", "via", beta.address)
    proxy.routed("virtual.team-a", "/", "beta", 8080)


@scenario
def words_of_others(world: World) -> None:
    """kubernetes: a tool server of another namespace counts for callers that name it, or if its namespace is trusted"""
    stage(world)
    tool = {"kind": "RemoteMCPServer", "apiGroup": "kagent.dev", "name": "foreign"}
    [made] = world.apply(agent("team-a", "insider", {"type": "McpServer", "mcpServer": tool}))
    world.apply(
        service("tools", "foreign", port(8084), port(8085), app="alpha"),
        remote("team-a", "foreign", "http://foreign.tools:8085/mcp"),
        deployment("team-a", "insider-pod", "backend:8080"),
        agent_service(made, "insider-pod"),
    )
    world.wait_ready("team-a", "insider")
    proxy = world.proxy()
    insider = world.kubelet.pod("insider-pod")
    proxy.routed("foreign.tools", "/mcp", "alpha", 8085, caller=insider)
    proxy.refused("foreign.tools", "/mcp", 403, "forbidden_target")
    # An own tool server of the Service's namespace outranks it, for everybody.
    world.apply(remote("tools", "own", "http://foreign.tools:8084/mcp"))
    proxy.routed("foreign.tools", "/mcp", "alpha", 8084)
    world.api.delete(remote("tools", "own", ""))
    proxy = world.proxy(discovery={"trustedNamespaces": ["*"]})
    proxy.routed("foreign.tools", "/mcp", "alpha", 8085)


@scenario
def own_address(world: World) -> None:
    """kubernetes: a tool server whose URL is the proxy's short name is refused, and told the name that works"""
    stage(world)
    world.apply(remote("kagent", "self", "http://kagent-proxy.kagent:8080/mcp"))
    proxy = world.proxy()
    text = json.dumps(proxy.refused("kagent-proxy.kagent", "/mcp", 403, "forbidden_target"))
    assert "kagent-proxy.kagent.svc" in text, text
