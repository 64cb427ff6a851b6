"""The chart and the kustomize bases before a real API server: taken, restricted, permitted.

What is rendered, and with which values, is `tests/deploy_chart.py`'s; its promises are not asserted again here.
A ServiceMonitor or PrometheusRule has no definition on this server and is left to that test's shape. What the
deployed proxy does is in `chart_running.py`.
"""

import contextlib
import json
import pathlib
import sys

import build
import crds
from api import Api, ApiError
from world import World, scenario

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
        known = [thing for thing in things if thing["kind"] not in ("ServiceMonitor", "PrometheusRule")]
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
    labels = {
        "pod-security.kubernetes.io/enforce": "restricted",
        "pod-security.kubernetes.io/enforce-version": "latest",
    }
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
        may |= {
            (s, group, resource, v) for s, v in asked if allowed(world, account, what | {"namespace": s, "verb": v})
        }
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
    world.apply(*crds.of_1_0())
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
