"""The plane itself, without our proxy: what the other scenarios stand on."""

import signal
import subprocess

from api import until
from world import World, ask, deployment, scenario, service


@scenario
def deployment_gets_ready(world: World) -> None:
    """kubernetes: two pods of a Deployment get ready and both stand in the EndpointSlice, with their zones."""
    space = world.namespace("plane")
    world.apply(deployment(space, "echo", "backend:8080", 2), service(space, "echo", 8080))
    found = world.wait_ready(space, "echo", 2)
    assert {e["zone"] for e in found} == {"zone-a", "zone-b"}, found
    names = set()
    for endpoint in found:
        status, _, body = ask(endpoint["addresses"][0], 8080, "/x?y=1")
        assert (status, body["path"], body["port"]) == (200, "/x?y=1", 8080), body
        names.add(body["pod"])
    assert names == {e["targetRef"]["name"] for e in found}, (names, found)
    one, two = (world.kubelet.pod(name) for name in sorted(names))
    status, _, body = ask(two.address, 8080, pod=one)
    assert body["pod"] == two.pod_name, body
    status, _, body = ask(two.place.address6, 8080, pod=one)
    assert body["pod"] == two.pod_name, body


@scenario
def deletion_terminates(world: World) -> None:
    """kubernetes: a deleted pod with a running stream is terminating and serving, then gone, and is replaced."""
    space = "plane"
    world.apply(deployment(space, "echo", "backend:8080", 2), service(space, "echo", 8080))
    pod = world.kubelet.pod("echo") if world.wait_ready(space, "echo", 2) else None
    # A stream of a backend that takes its time: stopped, so that it cannot end by SIGTERM at once.
    process = pod.containers[0].process
    process.send_signal(signal.SIGSTOP)

    def mine() -> dict | None:
        found = [e for e in world.endpoints(space, "echo") if e["targetRef"]["name"] == pod.pod_name]
        return found[0] if found else None

    try:
        world.api.delete(pod.reference(), gracePeriodSeconds=20)
        terminating = until(lambda: (e := mine()) and e["conditions"].get("terminating") and e, 30, mine)
        assert terminating["conditions"] == {"ready": False, "serving": True, "terminating": True}, terminating
    finally:
        process.send_signal(signal.SIGCONT)
    until(lambda: mine() is None, 30, mine)
    until(lambda: process.poll() is not None, 30, "the process ended")
    assert process.returncode == 0, process.returncode
    world.wait_ready(space, "echo", 2)


@scenario
def dual_stack(world: World) -> None:
    """kubernetes: a Service of both families has a slice for each, and a pod answers on both addresses."""
    space = world.namespace("plane")
    world.apply(
        deployment(space, "dual", "backend:8080"),
        service(space, "dual", 8080, ipFamilyPolicy="RequireDualStack", ipFamilies=["IPv6", "IPv4"]),
    )

    def both() -> set[str]:
        found = {e["addresses"][0] for e in world.wait_ready(space, "dual")}
        return found if {":" in address for address in found} == {True, False} else set()

    addresses = until(both, 30, lambda: world.endpoints(space, "dual"))
    for address in addresses:
        assert ask(address, 8080)[2]["port"] == 8080


@scenario
def service_account_token(world: World) -> None:
    """kubernetes: a pod's token, certificate and API server address are those of its service account."""
    space = world.namespace("plane")
    world.apply(deployment(space, "account", "backend:8080"), service(space, "account", 8080))
    world.wait_ready(space, "account")
    pod = world.kubelet.pod("account")
    container = pod.containers[0]
    script = (
        "cd /var/run/secrets/kubernetes.io/serviceaccount && "
        'curl -s --cacert ca.crt -H "Authorization: Bearer $(cat token)" '
        '"https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/$(cat namespace)/pods"'
    )
    enter = ["nsenter", "--target", str(container.process.pid), "--mount", "--net", "--root", "--", "sh", "-c", script]
    done = subprocess.run(enter, capture_output=True, text=True, timeout=30, env=container.env)
    assert f"system:serviceaccount:{space}:default" in done.stdout, (done.stdout, done.stderr)
    assert '"code": 403' in done.stdout, done.stdout


@scenario
def server_restarted(world: World) -> None:
    """kubernetes: the API server is killed and started again, and pods are made and ended as before."""
    space = world.namespace("plane")
    world.apply(deployment(space, "echo", "backend:8080", 2), service(space, "echo", 8080))
    world.wait_ready(space, "echo", 2)
    world.plane.restart_server()
    world.plane.kubectl("-n", space, "rollout", "restart", "deployment/echo")
    world.plane.kubectl("-n", space, "rollout", "status", "deployment/echo", "--timeout=60s")
    world.wait_ready(space, "echo", 2)
