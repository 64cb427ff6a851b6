"""Objects of kagent 1.0 in scenarios of zero-route discovery: trust, TLS, chosen namespaces, paths, sessions, doctor.

What has no counterpart there: an Agent's own Service and pods, so nothing by calling Agent (its address is the
gateway's), no `endpoints: service` and no static route beside it, which ask nothing of the object; the outage and the
change of a CA Secret (`e_secrets`), which read the same Secret for objects of both groups. Faults (`f_faults`), the controller's paths
(`c_routes`) and doctor's rights (`i_doctor`) have objects of both groups where they are.
"""

import json

import crds
import i_doctor
from api import until
from c_routes import port, stage
from e_secrets import AUTHORITIES, rights
from m_groups import remove
from newer import KINDS, PROXY, of_1_0, opted
from secure import authority, secret, served
from world import World, deployment, scenario, service

from proxy import Proxy


def newer(space: str, name: str, url: str, **spec) -> dict:
    """A tool server of kagent 1.0 by its own URL."""
    return of_1_0("RemoteMCPServer", name, {"description": "d", "url": url, **spec}, space)


def begin(world: World) -> None:
    stage(world)
    world.apply(*crds.of_1_0())


@scenario
def trust(world: World) -> None:
    """newer: the word of another namespace counts only if it is trusted, and an own object outranks it"""
    begin(world)
    world.apply(
        service("tools", "newer-foreign", port(8084), port(8085), app="alpha"),
        opted("newer-foreign", "newer-foreign.tools:8085", "team-a"),
    )
    proxy = world.proxy()
    # As the contract has it for 1.0: nobody is known by address, so there is no caller it counts for.
    proxy.refused("newer-foreign.tools:8085", "/mcp", 403, "forbidden_target")
    world.apply(opted("newer-own", "newer-foreign.tools:8084", "tools"))
    proxy.routed("newer-foreign.tools:8084", "/mcp", "alpha", 8084)
    world.api.delete(opted("newer-own", "", "tools"))
    proxy.refused("newer-foreign.tools:8084", "/mcp", 403, "forbidden_target")
    proxy = world.proxy(discovery={"trustedNamespaces": ["*"]})
    proxy.routed("newer-foreign.tools:8085", "/mcp", "alpha", 8085)


@scenario
def https(world: World) -> None:
    """newer: an https URL is dialled with TLS, by the authority of its CA Secret or unchecked, else it is an error"""
    begin(world)
    files = authority("newer-sealed.vault")
    world.namespace("vault")
    world.apply(
        *rights(),
        secret("vault", "newer-sealed", files, "tls.crt", "tls.key"),
        secret("vault", AUTHORITIES, files, "ca.crt"),
        served(deployment("vault", "newer-sealed", "backend:443-8443"), "newer-sealed"),
        service("vault", "newer-sealed", port(443), port(8443)),
        newer("vault", "newer-sealed", "https://newer-sealed.vault:8443/mcp",
              tls={"caCertSecretRef": AUTHORITIES, "caCertSecretKey": "ca.crt"}),
        service("vault", "newer-loose", port(443), port(8443), app="newer-sealed"),
        newer("vault", "newer-loose", "https://newer-loose.vault/mcp", tls={"disableVerify": True}),
        service("vault", "newer-strict", port(8443), app="newer-sealed"),
        newer("vault", "newer-strict", "https://newer-strict.vault:8443/mcp"),
    )  # fmt: skip
    world.wait_ready("vault", "newer-sealed")
    proxy = world.proxy()
    for host, number in (("newer-sealed.vault", 8443), ("newer-loose.vault", 443)):
        assert proxy.routed(host, "/mcp", "newer-sealed", number)["tls"] is True
    text = str(proxy.refused("newer-strict.vault", "/mcp", 502, "connect_failed"))
    assert "certificate" in text, text


@scenario
def same_host(world: World) -> None:
    """newer: tool servers of one host are told apart by path, and by the port in the header where paths are the same"""
    begin(world)
    world.apply(
        service("kagent", "newer-split", port(8084), port(8090), app="alpha"),
        newer("kagent", "newer-one", "http://newer-split.kagent:8084/mcp"),
        newer("kagent", "newer-two", "http://newer-split.kagent:8090/docs/mcp"),
        service("kagent", "newer-same", port(8084), port(8090), app="beta"),
        newer("kagent", "newer-three", "http://newer-same.kagent:8084/mcp"),
        newer("kagent", "newer-four", "http://newer-same.kagent:8090/mcp"),
    )
    proxy = world.proxy()
    proxy.routed("newer-split.kagent", "/mcp", "alpha", 8084)
    proxy.routed("newer-split.kagent", "/docs/mcp", "alpha", 8090)
    text = str(proxy.refused("newer-same.kagent", "/mcp", 500, "ambiguous_target"))
    assert "newer-three" in text and "newer-four" in text, text
    proxy.routed("newer-same.kagent:8090", "/mcp", "beta", 8090)


@scenario
def chosen_namespaces(world: World) -> None:
    """newer: with Roles in chosen namespaces objects there open their targets, later ones too, and others do not"""
    begin(world)
    world.namespace("team-b")
    world.apply(
        service("team-a", "newer-seen", port(8084), app="alpha"),
        opted("newer-seen", "newer-seen.team-a", "team-a"),
        service("team-b", "newer-seen", port(8084), app="alpha"),
        opted("newer-seen", "newer-seen.team-b", "team-b"),
        service("team-a", "newer-later", port(8085), app="beta"),
    )
    world.end_proxy()
    with Proxy(world, "kubernetes-namespaced") as proxy:
        proxy.routed("newer-seen.team-a", "/mcp", "alpha", 8084)
        proxy.refused("newer-seen.team-b", "/mcp", 503, "unknown_target")
        proxy.refused("newer-later.team-a", "/mcp", 403, "forbidden_target")
        world.apply(opted("newer-later", "newer-later.team-a", "team-a"))
        proxy.routed("newer-later.team-a", "/mcp", "beta", 8085)


@scenario
def sessions(world: World) -> None:
    """newer: an object of 1.0 says pin or pass for the sessions of its target, and explain says so"""
    begin(world)
    world.apply(service("tools", "newer-kept", port(8084), app="alpha"))
    proxy = world.proxy()
    for word, wanted in (("pin", "pin"), ("pass", "pass"), ("often", "revive")):
        made = opted("newer-kept", "newer-kept.tools", "tools")
        made["metadata"]["annotations"] = {"kagent-proxy.dev/sessions": word}
        world.apply(made)
        explains(proxy, word, wanted)


def explains(proxy, word: str, wanted: str) -> None:
    said: list = []

    def so() -> bool:
        said[:] = [proxy.explain("newer-kept.tools", "/mcp")]
        told = json.loads(said[0])
        return word in said[0] and told.get("applies", {}).get("sessions") == wanted

    until(so, 20, lambda: (word, said))


@scenario
def doctor(world: World) -> None:
    """newer: doctor finds nothing in a cluster of 1.0 without proxy.url, and each object that is written wrong"""
    for kind in KINDS:
        remove(world, f"{kind}.api.kagent.dev")
    i_doctor.stage(world)
    world.apply(*crds.of_1_0())
    i_doctor.agent_gone(world, "helper")
    i_doctor.proxy_url(world, None)
    world.apply(
        service("doctor", "newer-tools", port(8084), port(8085), app="helper"),
        opted("newer-tools", "newer-tools.doctor:8084", "doctor"),
    )
    i_doctor.healthy(world)
    wrong = of_1_0("RemoteMCPServer", "newer-wrong", {}, "doctor")
    for made, level, what, remedy in (
        (opted("newer-wrong", "newer-tools.doctor:9", "doctor"), "error", "names port 9", "newer-tools.doctor"),
        (opted("newer-wrong", "kagent-proxy.kagent", "doctor"), "error", "the proxy itself", "NAME.NAMESPACE"),
        (newer("doctor", "newer-wrong", PROXY), "error", "nothing says to which tool server", "headersFrom"),
        (newer("doctor", "newer-wrong", "http://newer-tools.doctor:8085/mcp"), "warning", "around the proxy",
         "set spec.url to http://kagent-proxy.kagent.svc:8080/mcp, and headersFrom"),
    ):  # fmt: skip
        world.apply(made)
        i_doctor.finds(world, level, "RemoteMCPServer doctor/newer-wrong of api.kagent.dev", what, remedy)
        world.api.delete(wrong)
    i_doctor.healthy(world)
