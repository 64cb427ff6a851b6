"""What the proxy may read: exactly the manifests' rights, fewer, and only some namespaces."""

import crds
from api import until
from world import World, deployment, kagent, scenario, service

from proxy import Proxy, rendered

KUBE = "rbac.authorization.k8s.io/v1"
BYO = {"type": "BYO", "description": "b", "byo": {"deployment": {"image": "x"}}}


def stage(world: World) -> None:
    world.definitions()
    for space in ("kagent", "team-a", "team-b"):
        world.namespace(space)
    for space in ("team-a", "team-b"):
        world.apply(
            deployment(space, "echo", "backend:8080-8081"),
            kagent("Agent", space, "seen", BYO),
            service(space, "seen", 8080, app="echo"),
        )
        world.wait_ready(space, "seen")


class Rights(Proxy):
    """The proxy with some resources taken from its role."""

    without: tuple[str, ...] = ()

    def changed(self, thing: dict) -> dict:
        if thing["kind"] in ("ClusterRole", "Role"):
            for rule in thing["rules"]:
                rule["resources"] = [name for name in rule["resources"] if name not in self.without]
            thing["rules"] = [rule for rule in thing["rules"] if rule["resources"]]
        return super().changed(thing)


@scenario
def reads_only_what_it_must(world: World) -> None:
    """kubernetes: with the manifests' own role every list and watch is allowed, and nothing else is"""
    stage(world)
    world.apply(*crds.of_1_0())
    proxy = world.proxy()
    proxy.routed("seen.team-a", "/", "echo", 8080)
    account = "--as=system:serviceaccount:kagent:kagent-proxy"
    for kind in ("services", "endpointslices.discovery.k8s.io", "pods", "agents.kagent.dev", "mcpservers.kagent.dev",
                 "agents.api.kagent.dev", "agenttemplates.api.kagent.dev", "remotemcpservers.api.kagent.dev"):
        for verb, answer in (("watch", "yes"), ("delete", "no"), ("patch", "no"), ("create", "no")):
            said = can(world, verb, kind, account)
            assert said == answer, (verb, kind, said)
    for kind in ("secrets", "nodes", "configmaps"):
        assert can(world, "list", kind, account) == "no", kind
    errors = proxy.metric("kagent_proxy_discovery_errors_total")
    assert not errors, (errors, proxy.log())
    assert proxy.metric("kagent_proxy_discovery_synced") == 1


def can(world: World, verb: str, kind: str, account: str) -> str:
    try:
        return world.plane.kubectl("auth", "can-i", verb, kind, account, "-A").split()[-1]
    except AssertionError:
        return "no"


@scenario
def optional_kind_forbidden(world: World) -> None:
    """kubernetes: a kind of kagent that is forbidden counts as absent, with a metric and a line in the log"""
    stage(world)
    world.end_proxy()
    made = Rights(world)
    made.without = ("mcpservers", "namespaces")
    with made as proxy:
        proxy.routed("seen.team-a", "/", "echo", 8080)
        for kind, up in (("mcpservers", 0), ("namespaces", 0), ("remotemcpservers", 1), ("services", 1)):
            assert proxy.metric("kagent_proxy_discovery_up", kind=kind) == up, (kind, proxy.discovery())
        for kind in made.without:
            line = f"allow get, list and watch on {kind}"
            assert line in proxy.log(), (line, proxy.log())


@scenario
def services_forbidden(world: World) -> None:
    """kubernetes: without the right to list Services or EndpointSlices the proxy is not ready and names the rule"""
    stage(world)
    world.end_proxy()
    for kind in ("services", "endpointslices"):
        made = Rights(world, ready=False)
        made.without = (kind,)
        with made as proxy:
            until(lambda k=kind: k in proxy.log().lower() and "forbidden" in proxy.log().lower(), 30, proxy.log)
            assert not proxy.became_ready_after(3), kind
            # The right is given, and it goes on without a restart.
            made.without = ()
            world.apply(*[Proxy.changed(made, t) for t in rendered_rights(world)])
            proxy.wait_ready(90)
            proxy.routed("seen.team-a", "/", "echo", 8080)


def rendered_rights(world: World) -> list[dict]:
    return [thing for thing in rendered(world, "kubernetes") if thing["kind"] == "ClusterRole"]


@scenario
def only_namespaces(world: World) -> None:
    """kubernetes: with Roles in chosen namespaces only, these are routed and others are unknown"""
    stage(world)
    world.end_proxy()
    with Proxy(world, "kubernetes-namespaced") as proxy:
        roles = world.api.list(KUBE, "ClusterRoleBinding")
        assert not any(s["name"] == "kagent-proxy" for r in roles for s in r.get("subjects") or []), roles
        proxy.routed("seen.team-a", "/", "echo", 8080)
        proxy.refused("seen.team-b", "/", 503, "unknown_target")
        # A new agent there is seen, so the watch is one of that namespace.
        world.apply(kagent("Agent", "team-a", "later", BYO), service("team-a", "later", 8081, app="echo"))
        proxy.routed("later.team-a", "/", "echo", 8081)
