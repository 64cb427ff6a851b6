"""The chart and the kustomize bases before a real API server: taken, restricted, permitted, installed by Helm.

What is rendered, and with which values, is `tests/deploy_chart.py`'s; its promises are not asserted again here.
A ServiceMonitor has no definition on this server and is left to that test's shape.
"""

import contextlib
import json
import pathlib
import re
import sys

import build
from api import Api, ApiError, until
from world import World, ask, deployment, kagent, scenario, service

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
import deploy_tools
from deploy_chart import EVERYTHING, NAMESPACED, NOTHING
from deploy_promises import CLUSTER_ONLY, READ, WATCHED, Deployed

deploy_tools.GIVEN.update({name: str(path) for name, path in build.programs("kubectl", "helm").items()})
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
RENDERED = {
    "chart": lambda: deploy_tools.charted(),
    "chart, everything on": lambda: deploy_tools.charted(EVERYTHING),
    "chart, namespaced": lambda: deploy_tools.charted(NAMESPACED),
    "chart, everything off": lambda: deploy_tools.charted(NOTHING),
    "kubernetes": lambda: deploy_tools.kustomized("kubernetes"),
    "kubernetes-namespaced": lambda: deploy_tools.kustomized("kubernetes-namespaced"),
}


def rendered() -> dict[str, list[dict]]:
    return {name: render() for name, render in RENDERED.items()}


def dry_run(world: World, *things: dict, fails: bool = False) -> str:
    """Server-side apply without a trace; a field that the server does not know is an error."""
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(things)})
    command = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    return world.plane.kubectl(*command, text=text, fails=fails)


@scenario
def objects_are_accepted(world: World) -> None:
    """chart: every object of chart and kustomize is accepted by a server-side dry run, and a misspelt one is not."""
    counts = []
    for name, things in rendered().items():
        known = [thing for thing in things if thing["kind"] != "ServiceMonitor"]
        for space in {thing["metadata"].get("namespace") for thing in known} - {None}:
            world.namespace(space)
        said = dry_run(world, *known).splitlines()
        assert len(said) == len(known) and all("serverside-applied (server dry run)" in line for line in said), said
        counts.append(f"{len(known)} of {name}")
    [wrong] = [thing for thing in things if thing["kind"] == "Deployment"]
    wrong["spec"]["template"]["spec"]["topologySpreadConstraint"] = []
    assert "topologySpreadConstraint" in dry_run(world, wrong, fails=True)
    world.notes.append(f"  accepted: {', '.join(counts)}")


@scenario
def pods_are_restricted(world: World) -> None:
    """chart: a namespace that enforces the restricted Pod Security Standard takes the pods, and not a lesser one."""
    space = "chart-restricted"
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
    world.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": labels}})
    for name, things in rendered().items():
        template = Deployed(things).deployment["spec"]["template"]
        account = {"apiVersion": "v1", "kind": "ServiceAccount"}
        world.apply(account | {"metadata": {"name": template["spec"]["serviceAccountName"], "namespace": space}})
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "proxy", "namespace": space}}
        pod["spec"] = template["spec"] | {"restartPolicy": "Always"}
        assert "serverside-applied" in dry_run(world, pod), name
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert 'violates PodSecurity "restricted' in dry_run(world, pod, fails=True)


def reviewed(world: World, account: str, scopes: list[str]) -> set[tuple]:
    """(namespace or "", group, resource, verb) of all that the account may do, of all that the server serves."""
    groups = [("", "/api/v1")]
    for group in world.api.request("GET", "/apis")["groups"]:
        groups += [(group["name"], f"/apis/{version['groupVersion']}") for version in group["versions"]]
    may = set()
    for group, resource in {
        (group, entry["name"]) for group, path in groups for entry in world.api.request("GET", path)["resources"]
    }:
        kind, _, sub = resource.partition("/")
        what = {"group": group, "resource": kind, "subresource": sub}
        asked = [(scope, verb) for scope in scopes for verb in VERBS]
        may |= {(s, group, resource, v) for s, v in asked if allowed(world, account, what | {"namespace": s, "verb": v})}
    return may


def allowed(world: World, account: str, attributes: dict) -> bool:
    spec = {"user": account, "groups": ["system:authenticated", "system:serviceaccounts"]}
    spec["resourceAttributes"] = attributes
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return world.api.request("POST", path, review)["status"]["allowed"]


@contextlib.contextmanager
def granted(world: World, things: list[dict]):
    """The account and what it may do, for the time of the block; gives the account's name."""
    made = [t for t in things if t["kind"] == "ServiceAccount" or "Role" in t["kind"]]
    world.apply(*made)
    try:
        yield Deployed(things).pod["serviceAccountName"]
    finally:
        for thing in made:
            world.api.delete(thing)


@scenario
def permissions_are_exact(world: World) -> None:
    """chart: of everything that the server serves, the proxy may read what discovery watches, and nothing else."""
    world.definitions()
    scopes = ["", *(world.namespace(space) for space in ("kagent", "team-a", "team-b"))]
    everybody = reviewed(world, "system:serviceaccount:kagent:nobody", scopes)
    cases = {name: things for name, things in rendered().items() if "everything" not in name}
    for name, things in cases.items():
        chosen = ["kagent", "team-a"] if "namespaced" in name else scopes
        kinds = WATCHED if "namespaced" in name else WATCHED | CLUSTER_ONLY
        with granted(world, things) as account:
            given = reviewed(world, f"system:serviceaccount:kagent:{account}", scopes) - everybody
        wanted = {(scope, *kind, verb) for scope in chosen for kind in kinds for verb in READ}
        assert given == wanted, (name, given ^ wanted)


@scenario
def secrets_by_name(world: World) -> None:
    """chart: a Secret of rbac.secrets may be read by its name in its namespace; no other, and no list of them."""
    for space in ("kagent", "team-a"):
        world.namespace(space)
    for secret in ("tools-ca", "other"):
        meta = {"name": secret, "namespace": "team-a"}
        world.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"ca.crt": secret}})
    with granted(world, rendered()["chart, namespaced"]) as account:
        path = world.api.path("v1", "ServiceAccount", "kagent", account, "token")
        wish = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token = world.api.request("POST", path, wish)["status"]["token"]
        proxy = Api(world.api.host, world.api.port, token, str(world.plane.authority))
        assert proxy.request("GET", "/api/v1/namespaces/team-a/secrets/tools-ca")["data"]
        for path in ("team-a/secrets/other", "team-a/secrets", "kagent/secrets/tools-ca"):
            try:
                answer = proxy.request("GET", f"/api/v1/namespaces/{path}")
            except ApiError as error:
                assert error.code == 403, error
            else:
                raise AssertionError(f"{path} may be read: {answer}")


def agents(world: World, *spaces: str) -> None:
    """An agent called helper in each."""
    world.definitions()
    for space in map(world.namespace, spaces):
        world.apply(
            kagent("Agent", space, "helper", {"type": "BYO", "byo": {"deployment": {"image": "backend:8080"}}}),
            deployment(space, "helper", "backend:8080"),
            service(space, "helper", 8080),
        )
        world.wait_ready(space, "helper")


@contextlib.contextmanager
def running(world: World, things: list[dict]):
    """The objects, applied, the rollout over, until the block ends."""
    world.namespace("kagent")
    world.apply(*things)
    try:
        yield settled(world)[1]
    finally:
        for thing in things:
            world.api.delete(thing, propagationPolicy="Foreground")
        gone(world)


def gone(world: World) -> None:
    label = "app.kubernetes.io/name=kagent-proxy"
    world.plane.kubectl("-n", "kagent", "wait", "--for=delete", "pod", "-l", label, "--timeout=90s")


@scenario
def agents_are_routed(world: World) -> None:
    """chart: with its own permissions the proxy routes agents of the whole cluster, or of the chosen namespaces only."""
    agents(world, "team-a", "team-b")
    for name in ("chart", "chart, namespaced", "kubernetes", "kubernetes-namespaced"):
        things = RENDERED[name]()
        with running(world, things) as pods:
            for pod in map(world.kubelet.pod, pods):
                status, _, body = ask(pod.address, 8080, "/task", x_kagent_host="helper.team-a")
                assert (status, body.get("path")) == (200, "/task"), (name, status, body, pod.logs())
                status, fields, body = ask(pod.address, 8080, "/task", x_kagent_host="helper.team-b")
                if "namespaced" in name:
                    reason = fields.get("x-kagent-proxy-error")
                    assert (status, reason) == (503, "unknown_target"), (name, status, body, pod.logs())
                else:
                    assert status == 200, (name, status, body, pod.logs())


def told(pod, path: str) -> tuple[int, str]:
    """What the admin port says to a port-forward."""
    status, _, body = ask("127.0.0.1", 9090, path, pod=pod)
    return status, body.get("text", "")


@scenario
def missing_rules_are_named(world: World) -> None:
    """chart: without its rules the proxy is not ready and names them; with the two that it needs it is, and says what lacks."""
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
        ups = dict(re.findall(r'^kagent_proxy_discovery_up{kind="(\w+)"} (\d)$', text, re.MULTILINE))
        assert {kind for kind, up in ups.items() if up == "1"} == {"services", "endpointslices"}, ups
        assert "allow get, list and watch on agents" in log.read_text(), pod.logs()
        # All of it, in the same pods.
        world.apply(role)
        route = lambda: ask(pod.address, 8080, "/task", x_kagent_host="helper.team-a")  # noqa: E731
        until(lambda: route()[0] == 200, 30, route)
    finally:
        for thing in things:
            world.api.delete(thing, propagationPolicy="Foreground")
        gone(world)


def started(world: World):
    """A pod of the proxy whose admin port answers, ready or not."""
    for pod in list(world.kubelet.pods.values()):
        if pod.pod_name.startswith("kagent-proxy-") and pod.containers and pod.containers[0].started:
            return pod
    return None


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
    found = world.wait_ready("kagent", "kagent-proxy", 4)
    made = world.api.get("apps/v1", "Deployment", "kagent", "kagent-proxy")
    return made["metadata"]["generation"], {endpoint["targetRef"]["name"] for endpoint in found}


@scenario
def helm_installs(world: World) -> None:
    """chart: Helm installs it, it is ready; new routes roll nothing, new settings do; nothing stays."""
    world.definitions()
    world.namespace("kagent")
    chart = str(deploy_tools.CHART)
    said = release(world, "install", "kagent-proxy", chart)
    assert "proxy.url=http://kagent-proxy.kagent.svc.cluster.local:8080" in said, said
    try:
        first, pods = settled(world)
        for name in pods:
            pod = world.kubelet.pod(name)
            # The admin port tells others than loopback nothing but its state.
            assert ask(pod.address, 9090, "/routes")[0] == 403
            assert ask("127.0.0.1", 9090, "/routes", pod=pod)[0] == 200
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
    kinds = "deployment,replicaset,pod,service,configmap,serviceaccount,pdb,networkpolicy,clusterrole,clusterrolebinding"
    label = "app.kubernetes.io/instance=kagent-proxy"
    gone(world)
    left = world.plane.kubectl("-n", "kagent", "get", kinds, "-l", label, "-o", "name")
    assert not left, left
