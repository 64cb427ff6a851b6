"""The deployed proxy, from chart and kustomize base: permitted, routing, trusting, and installed by Helm.

Each scenario deploys as users do and takes everything away again. What the API server says to the objects
themselves is in `chart.py`; what is routed where, in the scenarios of `kubernetes`.
"""

import base64
import contextlib
import json
import os
import re

import crds
from api import until
from chart import RENDERED, deploy_tools
from newer import opted
from secure import authority, secret, served
from world import World, ask, deployment, kagent, scenario, service

from proxy import key


def agents(world: World, *spaces: str) -> None:
    """An agent called chart-helper in each."""
    world.definitions()
    for space in map(world.namespace, spaces):
        world.apply(
            kagent("Agent", space, "chart-helper", {"type": "BYO", "byo": {"deployment": {"image": "backend:8080"}}}),
            deployment(space, "chart-helper", "backend:8080"),
            service(space, "chart-helper", 8080),
        )
        world.wait_ready(space, "chart-helper")


@contextlib.contextmanager
def running(world: World, things: list[dict]):
    """The objects, applied, the rollout over, until the block ends. Without Helm the key is the user's to make."""
    world.namespace("kagent")
    if not any(thing["kind"] == "Secret" for thing in things):
        things = [key(), *things]
    world.apply(*things)
    try:
        yield settled(world)[1]
    finally:
        for thing in things:
            world.api.delete(thing, propagationPolicy="Background")
        gone(world)


def gone(world: World) -> None:
    """Nothing makes pods any more, and they are gone; what they would drain is no matter here."""
    label = "app.kubernetes.io/name=kagent-proxy"

    def ended() -> bool:
        sets = world.api.list("apps/v1", "ReplicaSet", "kagent", label)
        pods = world.api.list("v1", "Pod", "kagent", label)
        for pod in pods:
            world.api.delete({"apiVersion": "v1", "kind": "Pod", **pod}, gracePeriodSeconds=0)
        return not sets and not pods

    until(ended, 60, lambda: world.state("kagent"))


@scenario
def agents_are_routed(world: World) -> None:
    """chart: with its own permissions the proxy routes agents of the whole cluster, or of its namespaces only"""
    agents(world, "team-a", "team-b")
    for name in ("chart", "chart, namespaced", "kubernetes", "kubernetes-namespaced"):
        things = RENDERED[name]()
        with running(world, things) as pods:
            for pod in map(world.kubelet.pod, pods):
                status, _, body = ask(pod.address, 8080, "/task", x_kagent_host="chart-helper.team-a")
                assert (status, body.get("path")) == (200, "/task"), (name, status, body, pod.logs())
                status, fields, body = ask(pod.address, 8080, "/task", x_kagent_host="chart-helper.team-b")
                if "namespaced" in name:
                    reason = fields.get("x-kagent-proxy-error")
                    assert (status, reason) == (503, "unknown_target"), (name, status, body, pod.logs())
                else:
                    assert status == 200, (name, status, body, pod.logs())


def tool_server(world: World) -> str:
    """A server with one port, which no object names yet."""
    space = world.namespace("chart-newer")
    world.apply(*crds.of_1_0())
    world.apply(deployment(space, "search", "backend:8084"), service(space, "search", 8084))
    world.wait_ready(space, "search")
    return f"search.{space}"


@scenario
def kagent_1_0(world: World) -> None:
    """chart: one installation and one RemoteMCPServer of kagent 1.0, and calls go through"""
    host = tool_server(world)
    with running(world, RENDERED["chart"]()) as pods, one_server(world, host):
        for pod in map(world.kubelet.pod, pods):
            until(lambda p=pod: carried(p, host), 30, pod.logs)


@contextlib.contextmanager
def one_server(world: World, target: str):
    """A RemoteMCPServer of kagent 1.0 that names the proxy, and this target in its header, until the block ends."""
    one = opted("search", target, "chart-newer")
    world.apply(one)
    try:
        yield
    finally:
        world.api.delete(one)


def carried(pod, host: str) -> bool:
    """A call by this pod of the proxy gets to the host's server."""
    status, _, body = ask(pod.address, 8080, "/mcp", "POST", b"{}", x_kagent_host=host)
    return (status, body.get("path")) == (200, "/mcp")


def told(pod, path: str) -> tuple[int, str]:
    """What the admin port says to a port-forward."""
    status, _, body = ask("127.0.0.1", 9091, path, pod=pod)
    return status, body.get("text", "")


@scenario
def missing_rules_are_named(world: World) -> None:
    """chart: without its rules the proxy is not ready and names them; with the two that it needs it is"""
    agents(world, "team-a")
    things = RENDERED["chart"]()
    role = next(thing for thing in things if thing["kind"] == "ClusterRole")
    bare = [thing for thing in things if thing is not role]
    world.namespace("kagent")
    world.apply(*bare)
    try:
        pod = until(lambda: started(world), 60, lambda: world.state("kagent"))
        log = pod.containers[0].log
        for kind in ("services", "endpointslices"):
            rule = f"allow get, list and watch on {kind}"
            until(lambda r=rule: r in log.read_text(), 30, pod.logs)
        status, text = told(pod, "/readyz")
        assert status == 503, text
        needed = [rule for rule in role["rules"] if rule["resources"] in (["services"], ["endpointslices"])]
        world.apply(role | {"rules": needed})
        settled(world)
        _, text = told(pod, "/metrics")
        ups = dict(re.findall(r'^kagent_proxy_discovery_up{kind="([\w.]+)"} (\d)$', text, re.MULTILINE))
        assert {kind for kind, up in ups.items() if up == "1"} == {"services", "endpointslices"}, ups
        assert "allow get, list and watch on agents" in log.read_text(), pod.logs()
        # All of it, in the same pods.
        world.apply(role)
        route = lambda: ask(pod.address, 8080, "/task", x_kagent_host="chart-helper.team-a")  # noqa: E731
        until(lambda: route()[0] == 200, 30, route)
    finally:
        for thing in things:
            world.api.delete(thing, propagationPolicy="Background")
        gone(world)


def started(world: World):
    """A pod of the proxy whose admin port answers, ready or not."""
    for pod in list(world.kubelet.pods.values()):
        # One of the scenario before may still be leaving.
        if pod.pod_name.startswith("kagent-proxy-") and not pod.deleted.is_set():
            if pod.containers and pod.containers[0].started:
                return pod
    return None


def tool_server_with_tls(world: World, space: str, files: dict[str, str]) -> None:
    """One called chart-secure, whose RemoteMCPServer names a Secret with its authority."""
    spec = {"description": "d", "protocol": "STREAMABLE_HTTP", "url": f"https://chart-secure.{space}:8443/mcp"}
    spec["tls"] = {"caCertSecretRef": "chart-ca", "caCertSecretKey": "ca.crt"}
    world.apply(
        secret(space, "chart-secure-tls", files, "tls.crt", "tls.key"),
        secret(space, "chart-ca", files, "ca.crt"),
        served(deployment(space, "chart-secure", "backend:8443"), "chart-secure-tls"),
        service(space, "chart-secure", 8443),
        kagent("RemoteMCPServer", space, "chart-secure", spec),
    )
    world.wait_ready(space, "chart-secure")


@scenario
def authorities_are_found(world: World) -> None:
    """chart: a tool server with TLS is trusted by its CA Secret or a mounted bundle; without both the error says so"""
    world.definitions()
    world.namespace("kagent")
    space = world.namespace("team-a")
    files = authority(f"chart-secure.{space}")
    tool_server_with_tls(world, space, files)
    meta = {"name": "authorities", "namespace": "kagent"}
    world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"ca.crt": files["ca.crt"]}})
    bundle = {
        "volumes": [{"name": "authorities", "configMap": {"name": "authorities"}}],
        "volumeMounts": [{"name": "authorities", "mountPath": "/etc/authorities", "readOnly": True}],
        "config": {"discovery": {"caBundleFile": "/etc/authorities/ca.crt"}},
    }
    for values, well in (({}, False), ({"rbac": {"secrets": {space: ["chart-ca"]}}}, True), (bundle, True)):
        with running(world, deploy_tools.charted(values)) as pods:
            for pod in map(world.kubelet.pod, pods):

                def call(pod=pod):
                    return ask(pod.address, 8080, "/mcp", "POST", b"{}", x_kagent_host=f"chart-secure.{space}")

                if well:
                    until(lambda: call()[0] == 200, 30, lambda: (call(), pod.logs()))
                    assert call()[2]["tls"] is True, call()
                else:
                    status, _, body = call()
                    assert status >= 500 and f"Secret {space}/chart-ca" in json.dumps(body), (status, body)


def release(world: World, *arguments: str, values: dict | None = None) -> str:
    """Helm on this server; waits until what it did is in force."""
    arguments = (*arguments, "--namespace", "kagent", "--wait", "--timeout", "90s")
    done = deploy_tools.helm(*arguments, values=values, kubeconfig=world.plane.kubeconfig)
    assert done.returncode == 0, f"helm {arguments}: {done.stderr or done.stdout}\n{world.state('kagent')}"
    return done.stdout


def settled(world: World) -> tuple[int, set[str]]:
    """The Deployment's generation and its pods, once the rollout is over."""
    world.plane.kubectl("-n", "kagent", "rollout", "status", "deployment/kagent-proxy", "--timeout=90s")
    # Two pods with two addresses each, one of each family.
    found = world.wait_ready("kagent", "kagent-proxy", 2)
    made = world.api.get("apps/v1", "Deployment", "kagent", "kagent-proxy")
    return made["metadata"]["generation"], {endpoint["targetRef"]["name"] for endpoint in found}


SECRET = ("kagent", "kagent-proxy-sessions")


def sealing(world: World) -> str:
    """What the file of the key holds."""
    return base64.b64decode(world.api.get("v1", "Secret", *SECRET)["data"]["key"]).decode()


@scenario
def helm_keeps_the_key(world: World) -> None:
    """chart: upgrades keep the key of sessions, a rotated one too, and so does an uninstall; pods have it mounted"""
    world.definitions()
    world.namespace("kagent")
    chart = str(deploy_tools.CHART)
    release(world, "install", "kagent-proxy", chart)
    try:
        _, pods = settled(world)
        first = sealing(world)
        for pod in map(world.kubelet.pod, pods):
            assert (pod.folder / "volumes/sessions/key").read_text() == first
        release(world, "upgrade", "kagent-proxy", chart, values={"podLabels": {"again": "yes"}})
        assert sealing(world) == first
        both = "".join(f"{line}\n" for line in (base64.b64encode(os.urandom(32)).decode(), first))
        change = json.dumps({"stringData": {"key": both}})
        world.plane.kubectl("-n", "kagent", "patch", "secret", SECRET[1], "-p", change)
        release(world, "upgrade", "kagent-proxy", chart)
        assert sealing(world) == both
        release(world, "uninstall", "kagent-proxy")
        gone(world)
        assert sealing(world) == both
        release(world, "install", "kagent-proxy", chart)
        assert sealing(world) == both
        # A Secret of one's own: the chart's stays, unused.
        own = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "own", "namespace": "kagent"}}
        world.apply(own | {"stringData": {"key": first}})
        release(world, "upgrade", "kagent-proxy", chart, values={"sessions": {"existingSecret": "own"}})
        for pod in map(world.kubelet.pod, settled(world)[1]):
            assert (pod.folder / "volumes/sessions/key").read_text() == first
        assert sealing(world) == both
    finally:
        release(world, "uninstall", "kagent-proxy", "--ignore-not-found")
        gone(world)
        for name in (SECRET[1], "own"):
            meta = {"name": name, "namespace": "kagent"}
            world.api.delete({"apiVersion": "v1", "kind": "Secret", "metadata": meta})


@scenario
def helm_installs(world: World) -> None:
    """chart: Helm installs it, it is ready; new routes roll nothing, new settings do; nothing stays but the key."""
    world.definitions()
    world.namespace("kagent")
    host = tool_server(world)
    chart = str(deploy_tools.CHART)
    said = release(world, "install", "kagent-proxy", chart)
    assert "proxy.url=http://kagent-proxy.kagent.svc.cluster.local:8080" in said, said
    try:
        first, pods = settled(world)
        for name in pods:
            pod = world.kubelet.pod(name)
            # The admin port shows its state and nothing else, also to peers on loopback; the other one is not
            # there for other pods.
            assert ask(pod.address, 9090, "/routes")[0] == 403
            assert ask("127.0.0.1", 9090, "/routes", pod=pod)[0] == 403
            assert ask("127.0.0.1", 9091, "/routes", pod=pod)[0] == 200
        # One object is all that it takes, with a port in its header or without.
        for target in (host, f"{host}:8084"):
            with one_server(world, target):
                for pod in map(world.kubelet.pod, pods):
                    for value in (host, f"{host}:8084"):
                        until(lambda p=pod, v=value: carried(p, v), 30, pod.logs)
            for pod in map(world.kubelet.pod, pods):
                until(lambda p=pod: not carried(p, host), 30, pod.logs)
        routes = [{"match": "foo.dev", "targets": ["https://foo.dev"]}]
        release(world, "upgrade", "kagent-proxy", chart, values={"config": {"routes": routes}})
        assert settled(world) == (first, pods), "a route rolled the pods"
        file = world.api.get("v1", "ConfigMap", "kagent", "kagent-proxy")["data"]["config.yaml"]
        assert "foo.dev" in file, file
        release(world, "upgrade", "kagent-proxy", chart, values={"config": {"log": {"level": "debug"}}})
        later, others = settled(world)
        assert later > first and not pods & others, (later, first, pods, others)
    finally:
        release(world, "uninstall", "kagent-proxy")
    kinds = (
        "deployment,replicaset,pod,service,configmap,serviceaccount,pdb,networkpolicy,clusterrole,clusterrolebinding"
    )
    label = "app.kubernetes.io/instance=kagent-proxy"
    gone(world)
    left = world.plane.kubectl("-n", "kagent", "get", kinds, "-l", label, "-o", "name")
    assert not left, left
    # Sessions go on after the next installation.
    world.api.delete({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET[1], "namespace": "kagent"}})
