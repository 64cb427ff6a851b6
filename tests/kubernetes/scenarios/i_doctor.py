"""`kagent-proxy doctor` at a real API server: nothing in a healthy cluster, and each finding by the object that has it.

Every scenario stages the healthy cluster anew, spoils one thing, and asserts level, subject, words and remedy.
"""

import base64
import contextlib
import json
import subprocess

import crds
from api import until
from b_definitions import remove
from world import World, deployment, kagent, scenario, service

URL = "http://kagent-proxy.kagent.svc.cluster.local:8080"
BYO = {"type": "BYO", "description": "b", "byo": {"deployment": {"image": "x"}}}
CONTROLLER = "Deployment kagent/kagent-controller"
ACCOUNT = "ServiceAccount kagent/kagent-proxy"
HASH = "kagent.dev/config-hash"


def stage(world: World, space: str = "doctor", **options) -> None:
    """kagent's controller with `proxy.url`, the proxy, and one Agent as the controller makes it; no other objects."""
    remove(world)
    world.definitions()
    for name in ("kagent", space):
        world.namespace(name)
    controller = deployment("kagent", "kagent-controller", "backend:8080", 0)
    [container] = controller["spec"]["template"]["spec"]["containers"]
    container["envFrom"] = [{"configMapRef": {"name": "kagent-controller"}}]
    world.apply(controller)
    proxy_url(world, URL)
    target = {"url": URL, "headers": {"x-kagent-host": f"helper.{space}"}}
    agent(world, "helper", {"remote_agents": [target]}, space=space)
    world.proxy(**options)
    world.wait_ready(space, "helper")


def proxy_url(world: World, url: str | None) -> None:
    data = {} if url is None else {"PROXY_URL": url}
    meta = {"name": "kagent-controller", "namespace": "kagent"}
    world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})


def made(name: str, args: tuple = (), generation: str = "1", space: str = "doctor") -> dict:
    """The Deployment of an Agent as kagent's controller labels it."""
    thing = deployment(space, name, "backend:8080")
    template = thing["spec"]["template"]
    labels = {"app": "kagent", "kagent": name}
    thing["metadata"]["labels"] = thing["spec"]["selector"]["matchLabels"] = labels
    template["metadata"] = {"labels": labels, "annotations": {HASH: generation}}
    template["spec"]["containers"][0]["args"] = list(args)
    return thing


def agent(world: World, name: str, config: dict, args: tuple = (), space: str = "doctor") -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": space}}
    secret["data"] = {"config.json": base64.b64encode(json.dumps(config).encode()).decode()}
    world.apply(
        kagent("Agent", space, name, BYO), secret, made(name, args, space=space),
        service(space, name, 8080, selector={"app": "kagent", "kagent": name}),
    )  # fmt: skip


def tool(name: str, url: str) -> dict:
    spec = {"description": "d", "protocol": "STREAMABLE_HTTP", "url": url}
    return kagent("RemoteMCPServer", "doctor", name, spec)


def doctor(world: World, *more: str) -> subprocess.CompletedProcess:
    command = [world.program, "doctor", "--kubeconfig", str(world.plane.kubeconfig), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def doctor_in_pod(world: World, *more: str) -> subprocess.CompletedProcess:
    """As `kubectl exec` runs it: in the proxy's network and mounts, as its user, with its variables."""
    [container] = world.kubelet.pod("kagent-proxy").containers
    user = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]
    enter = ["nsenter", "--target", str(container.process.pid), "--mount", "--net", "--root", "--"]
    command = [*enter, *user, world.program, "doctor", *more]
    return subprocess.run(command, env=container.env, capture_output=True, text=True, timeout=120)


def report(world: World, run=doctor) -> dict:
    done = run(world, "--output", "json")
    assert done.returncode in (0, 1), done
    said = json.loads(done.stdout)
    levels = [finding["level"] for finding in said["findings"]]
    assert done.returncode == (1 if "error" in levels else 0), done
    for level in ("error", "warning", "note"):
        assert said[f"{level}s"] == levels.count(level), said
    return said


def finds(world: World, level: str, subject: str, what: str, remedy: str, run=doctor) -> None:
    """One finding has all this, soon: endpoints and rights take a moment."""
    last: list = []

    def there() -> bool:
        last[:] = report(world, run)["findings"]
        return any(
            f["level"] == level and subject in f["subject"] and what in f["what"] and remedy in f["remedy"]
            for f in last
        )

    until(there, 30, lambda: f"{level} {subject}: {what} -> {remedy}; last {last}")


def healthy(world: World) -> None:
    last: list = []

    def so() -> bool:
        last[:] = report(world)["findings"]
        return not last

    until(so, 60, lambda: last)


@scenario
def nothing_found(world: World) -> None:
    """kubernetes: doctor finds nothing in a healthy cluster and ends with 0, with 1 after a fault, with 2 if it cannot look"""
    stage(world)
    healthy(world)
    done = doctor(world)
    assert done.returncode == 0 and done.stdout.startswith("errors: 0, warnings: 0, notes: 0;"), done
    assert "1 Agents" in report(world)["lookedAt"]
    proxy_url(world, None)
    done = doctor(world)
    assert done.returncode == 1 and done.stdout.startswith("error "), done
    done = doctor(world, "--context", "nowhere")
    assert done.returncode == 2 and not done.stdout and "nowhere" in done.stderr, done


@scenario
def proxy_url_is_checked(world: World) -> None:
    """kubernetes: doctor finds a proxy.url that is missing, has a path, leads elsewhere or names another port"""
    stage(world)
    remedy = f"--set proxy.url={URL}"
    for url, level, what in (
        (None, "error", "is not set"),
        (f"{URL}/base", "warning", "has a path"),
        ("http://other.kagent:8080", "error", "leads elsewhere, not to Service kagent/kagent-proxy"),
        ("http://kagent-proxy.kagent:81", "error", "names port 81"),
    ):
        proxy_url(world, url)
        finds(world, level, CONTROLLER, what, remedy)
    world.api.delete(deployment("kagent", "kagent-controller", "backend:8080", 0))
    finds(world, "error", CONTROLLER, "there is no such Deployment", "--controller")


@scenario
def rights_are_checked(world: World) -> None:
    """kubernetes: doctor finds each right that the proxy's role lacks, pods among them, and names the rule"""
    stage(world)
    [role] = [thing for thing in world.proxy().objects if thing["kind"] == "ClusterRole"]
    world.apply(*crds.of_1_0())
    for group, kind, level, what in (
        ("", "services", "error", "the proxy never becomes ready"),
        ("discovery.k8s.io", "endpointslices", "error", "the proxy never becomes ready"),
        ("kagent.dev", "agents", "error", "agents in the cluster; the proxy works as if there were none"),
        ("api.kagent.dev", "remotemcpservers", "warning",
         "remotemcpservers.api.kagent.dev in the cluster; the proxy works as if there were none, which matters where"),
        ("", "pods", "warning", "whose an address in an EndpointSlice is"),
    ):  # fmt: skip
        rules = [
            rule | {"resources": [r for r in rule["resources"] if r != kind or group not in rule["apiGroups"]]}
            for rule in role["rules"]
        ]
        world.apply(role | {"rules": [rule for rule in rules if rule["resources"]]})
        remedy = f'add to its ClusterRole: {{apiGroups: ["{group}"], resources: [{kind}], verbs: [get, list, watch]}}'
        finds(world, level, ACCOUNT, what, remedy)
    world.apply(role)
    healthy(world)


@scenario
def services_are_checked(world: World) -> None:
    """kubernetes: doctor finds Services that are not routable, ports that are ambiguous or missing, and says why"""
    stage(world)
    external = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext", "namespace": "doctor"}}
    external["spec"] = {"type": "ExternalName", "externalName": "x.example"}
    ports = [{"name": "a", "port": 8084}, {"name": "b", "port": 8085}]
    world.apply(
        kagent("Agent", "doctor", "ext", BYO), external,
        kagent("Agent", "doctor", "late", BYO),
        kagent("Agent", "doctor", "two", BYO), service("doctor", "two", *ports, app="helper"),
        service("doctor", "tool", 3000), tool("tool", "http://tool.doctor:1234/mcp"),
        service("doctor", "both", *ports), tool("one", "http://both.doctor:8084/mcp"),
        tool("other", "http://both.doctor:8085/mcp"),
    )  # fmt: skip
    finds(world, "error", "Service doctor/ext", "ExternalName", "correct what names it, or give the Service another name")
    finds(world, "warning", "Service doctor/late", "its Service does not yet", "logs deployment/kagent-controller")
    finds(world, "error", "Service doctor/two", "several ports", "kagent.dev/mcp-service-port=PORT")
    finds(world, "error", "Service doctor/tool", "port 1234", "name one of its ports: 3000")
    finds(world, "error", "Service doctor/both", "doctor/one and doctor/other", "give both the same spec.url")


@scenario
def cards_are_checked(world: World) -> None:
    """kubernetes: doctor fetches agent cards through the proxy and finds those that lead around it"""
    stage(world)
    around = "http://helper.doctor:8080"
    agent(world, "astray", {}, ("--card-url", around))
    world.wait_ready("doctor", "astray")
    remedy = "http://astray.doctor:PORT"
    finds(world, "error", "Agent doctor/astray", f"its card leads around the proxy: {around};", remedy)
    assert not [f for f in report(world)["findings"] if f["subject"] == "Agent doctor/helper"]


@scenario
def agents_must_have_rolled(world: World) -> None:
    """kubernetes: doctor finds agents whose configuration or pods are older than proxy.url, until they have rolled"""
    stage(world)
    around = "http://helper.doctor:8080"
    agent(world, "old", {"remote_agents": [{"url": around}]})
    world.wait_ready("doctor", "old")
    remedy = "rollout restart deployment/kagent-controller"
    finds(world, "error", "Agent doctor/old", f"leads around the proxy: {around}", remedy)
    changed = made("helper", generation="2")
    # Nothing rolls while it is paused.
    changed["spec"]["paused"] = True
    world.apply(changed)
    remedy = "kubectl -n doctor rollout status deployment/helper"
    finds(world, "error", "Agent doctor/helper", "has not rolled: helper-", remedy)
    changed["spec"]["paused"] = False
    world.apply(changed)
    agent_gone(world, "old")
    healthy(world)


def agent_gone(world: World, name: str) -> None:
    world.api.delete(kagent("Agent", "doctor", name, BYO))


@scenario
def only_namespaces_are_judged(world: World) -> None:
    """kubernetes: doctor finds nothing in an install of chosen namespaces, and a right that its Role lacks in one"""
    stage(world, "team-a", folder="kubernetes-namespaced")
    healthy(world)
    remedy = 'add to its Role: {apiGroups: ["kagent.dev"], resources: [agents], verbs: [get, list, watch]}'
    with without_agents(world, "team-a"):
        finds(world, "error", ACCOUNT, "agents in namespace team-a; the proxy works as if there were none", remedy)
    healthy(world)


@scenario
def the_pod_judges_itself(world: World) -> None:
    """kubernetes: doctor in the proxy's pod goes by its configuration and its own rights, and says what it may not see"""
    stage(world, "team-a", folder="kubernetes-namespaced")

    def no_error() -> bool:
        last[:] = report(world, doctor_in_pod)["findings"]
        return {f["level"] for f in last} == {"warning"}

    last: list = []
    until(no_error, 60, lambda: last)
    subjects = {f["subject"] for f in last}
    assert subjects == {f"proxy.url of {CONTROLLER}", "deployments", "Secret team-a/helper"}, last
    remedy = 'add to its Role: {apiGroups: ["kagent.dev"], resources: [agents], verbs: [get, list, watch]}'
    with without_agents(world, "team-a"):
        finds(world, "error", "this ServiceAccount", "agents in namespace team-a;", remedy, doctor_in_pod)


@contextlib.contextmanager
def without_agents(world: World, space: str):
    """The proxy's Role in this namespace lacks agents, until the block ends."""
    roles = [thing for thing in world.proxy(folder="kubernetes-namespaced").objects if thing["kind"] == "Role"]
    [role] = [role for role in roles if role["metadata"]["namespace"] == space]
    rules = [rule | {"resources": [r for r in rule["resources"] if r != "agents"]} for rule in role["rules"]]
    world.apply(role | {"rules": rules})
    try:
        yield
    finally:
        world.apply(role)


@scenario
def replicas_need_a_key(world: World) -> None:
    """kubernetes: doctor finds two replicas without a key for MCP sessions, by kubeconfig and in the pod"""
    stage(world, replicas=2, sessions={"keyFiles": []})
    what = "has 2 replicas and no key for MCP sessions in its configuration"
    for run in (doctor, doctor_in_pod):
        finds(world, "warning", "Service kagent/kagent-proxy", what, "sessions.keyFiles", run)
    stage(world, replicas=2)
    healthy(world)


@scenario
def the_configuration_is_read(world: World) -> None:
    """kubernetes: doctor says that the proxy's own configuration is invalid, or that it cannot be found"""
    stage(world)
    [held] = [thing for thing in world.proxy().objects if thing["kind"] == "ConfigMap"]
    world.apply(held | {"data": {"config.yaml": "discovery: {enbaled: true}"}})
    finds(world, "error", "configuration of the proxy", "enbaled", "kagent-proxy check")
    world.api.delete(held)
    finds(world, "warning", "configuration of the proxy", "no ConfigMap kagent/kagent-proxy", "--config")
    world.apply(held)
    healthy(world)
