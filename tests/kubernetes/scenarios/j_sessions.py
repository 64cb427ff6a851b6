"""MCP sessions outlive the pods of their servers and of the proxy, on real pods and by any of two replicas.

The servers are of the Python SDK and keep a counter in each session, so a session that was begun anew shows, and so
does one that two replicas have sent two ways. What ran, and how often, is counted at the servers.
"""

import base64
import json
import os
import pathlib
import threading

from api import until
from mcp_client import Caller, Marks, Session, Stream
from world import World, ask, deployment, scenario, service

from proxy import NAME, Proxy
from proxy import SPACE as HOME

SPACE = "sessions"
HOST = f"tools.{SPACE}"
PROXY = {"replicas": 2, "drain": {"lag": "3s", "deadline": "20s"}}
MARK = "kagent-proxy.dev/sessions"
PEERS = "kagent_proxy_session_peers"
KEY = pathlib.PurePath("volumes/sessions/key")


def stage(world: World, **config) -> tuple[Proxy, Marks]:
    """Two servers, and two replicas of the proxy that know both and each other."""
    world.definitions()
    world.namespace(SPACE)
    proxy = world.proxy(**PROXY, **config)
    marks = Marks(world.kubelet.folder / "marks")
    made = deployment(SPACE, "tools", "mcp-server:8080", 2)
    [container] = made["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": "MARKS", "value": str(marks.path)}]
    made["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    labels = {"kagent.dev/mcp-service": "true"}
    world.apply(made, service(SPACE, "tools", 8080, metadata={"labels": labels}))
    settled(world, shares_key="sessions" not in config)
    return proxy, marks


def settled(world: World, shares_key: bool = True) -> None:
    """Both servers are ready, and both replicas know them, and each other."""
    world.wait_ready(SPACE, "tools", 2)
    world.wait_ready(HOME, NAME, 2)
    for pod in replicas(world):
        until(lambda p=pod: known(world, p) == servers(world), 30, lambda p=pod: (known(world, p), p.logs()))
        if shares_key:
            until(lambda p=pod: metric(p, PEERS) == 1, 30, lambda p=pod: (told(p, "/metrics"), p.logs()))


def replicas(world: World) -> list:
    """The proxy's pods that are ready and stay."""
    pods = list(world.kubelet.pods.values())
    return [pod for pod in pods if pod.pod_name.startswith(NAME) and pod.is_ready and not pod.deleted.is_set()]


def running(world: World) -> set[str]:
    """Every pod of the proxy that has not ended."""
    return {pod.pod_name for pod in list(world.kubelet.pods.values()) if pod.pod_name.startswith(NAME)}


def addresses(world: World) -> list[str]:
    return [pod.address for pod in replicas(world)]


def servers(world: World) -> set[str]:
    return {endpoint["targetRef"]["name"] for endpoint in world.ready_endpoints(SPACE, "tools")}


def known(world: World, pod, host: str = HOST) -> set[str]:
    """The ready servers in a replica's table."""
    routes = json.loads(told(pod, "/routes"))["routes"]
    ready = [e for r in routes if r["host"].startswith(host) for e in r["endpoints"] if e["state"] == "ready"]
    by_address = {f"{p.address}:8080": p.pod_name for p in list(world.kubelet.pods.values()) if p.place}
    return {by_address.get(endpoint["address"], "") for endpoint in ready}


def told(pod, path: str) -> str:
    status, _, body = ask("127.0.0.1", 9091, path, pod=pod)
    assert status == 200, (path, status, body)
    return body["text"] if set(body) == {"text"} else json.dumps(body)


def metric(pod, name: str) -> float | None:
    lines = [line for line in told(pod, "/metrics").splitlines() if line.startswith((f"{name} ", name + "{"))]
    return sum(float(line.split()[-1]) for line in lines) if lines else None


def delete(world: World, name: str, *how: str) -> None:
    world.plane.kubectl("-n", SPACE, "delete", "pod", name, "--wait=false", *how)


def moved(session: Session, proxies: list[str], old: str, seconds: float = 60) -> tuple[str, int]:
    """The first answer from another pod than the old one; every call until then has an answer too.

    Some are answered as lost: told to end, the SDK's server cuts the answers under way.
    """
    last: list = []

    def elsewhere() -> tuple[str, int] | None:
        proxies.append(proxies.pop(0))
        answer = session.call(proxies[0], "count")
        last[:] = [answer.is_lost, answer.said]
        assert answer.is_lost or "count" in answer.said, last
        return None if answer.is_lost or answer.said["pod"] == old else (answer.said["pod"], answer.said["count"])

    return until(elsewhere, seconds, lambda: f"an answer from another pod than {old}: {last}")


@scenario
def a_pod_is_deleted(world: World) -> None:
    """sessions: a session and its own stream outlive the pod, and both replicas go on in one new session"""
    _, marks = stage(world)
    one, two = addresses(world)
    session = Session(HOST, "deleted").begin(one)
    assert session.id.startswith("kp1."), session.id
    pod, _ = session.count(one)
    assert [session.count(proxy) for proxy in (two, one, two)] == [(pod, 2), (pod, 3), (pod, 4)]
    stream = Stream(session, two)
    until(lambda: any(m["what"] == "GET" and m["pod"] == pod for m in marks.all()), 30, lambda: marks.all()[-5:])
    session.call(one, "tell")
    until(lambda: len(stream.events) == 1, 30, lambda: stream.events)
    delete(world, pod)
    other, first = moved(session, [one, two], pod)
    assert first == 1, "a new session counts from the beginning"
    counted = [session.count(proxy) for proxy in (one, two) * 10]
    assert counted == [(other, n) for n in range(2, 22)], counted
    assert len(marks.homes("deleted")) == len(marks.of("begun", "deleted")) == 2, marks.of("begun", "deleted")
    marks.once("deleted")
    # Its stream is where the session is; the SDK drops what it says before the stream is there.
    until(lambda: session.call(one, "tell") and len(stream.events) > 1, 30, lambda: (stream.events, marks.all()[-8:]))
    assert stream.is_alive(), "the client had to open it again"
    stream.close()
    assert session.end(two).status in (200, 204)
    settled(world)


@scenario
def a_pod_dies_with_a_call(world: World) -> None:
    """sessions: a pod is killed: the call under way is answered as lost, all others go on, in one new session"""
    _, marks = stage(world)
    one, two = addresses(world)
    session = Session(HOST, "killed").begin(one)
    pod, _ = session.count(two)
    answers: list = []
    hanging = threading.Thread(target=lambda: answers.append(session.call(two, "hang")))
    hanging.start()
    until(lambda: len(marks.of("tools/call", "killed")) == 2, 30, lambda: marks.of("tools/call", "killed"))
    victim = world.kubelet.pod(pod)
    victim.kill()
    hanging.join(40)
    [answer] = answers
    assert answer.is_lost and "may or may not have taken effect" in answer.text, answer
    # All at once, by both replicas: one of them begins it anew, the others follow.
    threads = [threading.Thread(target=lambda p=proxy: answers.append(session.count(p))) for proxy in (one, two) * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    pods = {pod for pod, _ in answers[1:]}
    assert sorted(n for _, n in answers[1:]) == list(range(1, 13)) and pod not in pods and len(pods) == 1, answers
    assert len(marks.homes("killed")) == len(marks.of("begun", "killed")) == 2, marks.of("begun", "killed")
    marks.once("killed")
    victim.again()
    settled(world)


@scenario
def a_pod_serves_on_while_it_ends(world: World) -> None:
    """sessions: a pod that is told to end and serves on keeps its sessions, and no new ones, until it refuses"""
    _, marks = stage(world)
    name, host = "lingers", f"lingers.{SPACE}"
    made = deployment(SPACE, name, "mcp-server:8080", 2, terminationGracePeriodSeconds=20)
    [container] = made["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": "MARKS", "value": str(marks.path)}, {"name": "LINGER", "value": "6"}]
    world.apply(made, service(SPACE, name, 8080, metadata={"labels": {"kagent.dev/mcp-service": "true"}}))
    world.wait_ready(SPACE, name, 2)
    for replica in replicas(world):
        until(lambda r=replica: len(known(world, r, host)) == 2, 30, replica.logs)
    one, two = addresses(world)
    session = Session(host, name).begin(one)
    pod, _ = session.count(two)
    delete(world, pod)
    until(lambda: ending(world, name) == {pod}, 30, lambda: world.endpoints(SPACE, name))
    for replica in replicas(world):
        until(lambda r=replica: pod not in known(world, r, host), 30, replica.logs)
    counted = [session.count(proxy) for proxy in (one, two) * 5]
    assert counted == [(pod, n) for n in range(2, 12)], counted
    others = {Session(host, f"later-{n}").begin(one).count(two)[0] for n in range(4)}
    assert pod not in others, others
    assert ending(world, name) == {pod}, "it ended too early to show anything"
    _, first = moved(session, [one, two], pod)
    assert first == 1, "a new session counts from the beginning"
    marks.once(name)
    assert len(marks.homes(name)) == 2, marks.homes(name)
    world.plane.kubectl("-n", SPACE, "delete", f"deployment/{name}", f"service/{name}", "--wait=false")


def ending(world: World, name: str) -> set[str]:
    """The pods that are told to end and still serve."""
    found = world.endpoints(SPACE, name)
    return {e["targetRef"]["name"] for e in found if e["conditions"]["serving"] and e["conditions"].get("terminating")}


@scenario
def servers_are_rolled(world: World) -> None:
    """sessions: a rollout of the servers ends no session and runs no call twice"""
    _, marks = stage(world)
    old = servers(world)
    places = addresses(world)
    callers = [Caller(Session(HOST, f"roll-{n}").begin(places[n % 2]), lambda: addresses(world)) for n in range(4)]
    for caller in callers:
        caller.more()
    world.plane.kubectl("-n", SPACE, "rollout", "restart", "deployment/tools")
    world.plane.kubectl("-n", SPACE, "rollout", "status", "deployment/tools", "--timeout=120s")
    until(lambda: not servers(world) & old, 60, lambda: world.state(SPACE))
    until(lambda: all(c.answers[-1][0] not in old for c in callers), 60, lambda: [c.answers[-1] for c in callers])
    judged(world, marks, callers)
    settled(world)


def judged(world: World, marks: Marks, callers: list[Caller]) -> int:
    """Stops them: every call had an answer, ran at most once, and no session was in two places. How many were lost."""
    for caller in callers:
        caller.more(10)
        caller.stop()
    failures = {caller.name: caller.failures[:3] for caller in callers if caller.failures}
    assert not failures, (failures, [pod.logs() for pod in replicas(world)])
    calls = sum(len(caller.answers) + caller.lost for caller in callers)
    lost = sum(caller.lost for caller in callers)
    homes = {caller.name: len(marks.homes(caller.name)) for caller in callers}
    for caller in callers:
        marks.once(caller.name)
    longest = f"{max(caller.longest for caller in callers):.2f} s"
    said = f"{lost} of them as lost, for {longest} at a stretch" if lost else "none of them as lost"
    world.notes.append(f"  {calls} calls answered, {said}; sessions at the servers {homes}")
    return lost


@scenario
def proxies_are_rolled(world: World) -> None:
    """sessions: a rollout of the proxy ends no session; one that had moved moves once more at most"""
    proxy, marks = stage(world)
    one, two = addresses(world)
    wanderer = Session(HOST, "wanderer").begin(one)
    pod, _ = wanderer.count(one)
    delete(world, pod)
    moved(wanderer, [one, two], pod)
    settled(world)
    callers = [Caller(session, lambda: addresses(world)) for session in (wanderer, Session(HOST, "settler").begin(two))]
    for caller in callers:
        caller.more()
    before = len(marks.homes("wanderer"))
    old = {pod.pod_name for pod in replicas(world)}
    world.plane.kubectl("-n", HOME, "rollout", "restart", f"deployment/{NAME}")
    world.plane.kubectl("-n", HOME, "rollout", "status", f"deployment/{NAME}", "--timeout=120s")
    until(lambda: not running(world) & old, 90, lambda: (world.kubelet.faults, proxy.log()))
    assert judged(world, marks, callers) == 0, "no server went away"
    assert len(marks.homes("settler")) == 1, "nothing had happened to its server"
    assert len(marks.homes("wanderer")) <= before + 1, marks.homes("wanderer")
    settled(world)


@scenario
def a_replica_is_killed(world: World) -> None:
    """sessions: a replica dies that moved a session: the other one knows where it is, and tells who comes back"""
    _, marks = stage(world)
    one, two = replicas(world)
    session = Session(HOST, "known").begin(one.address)
    pod, _ = session.count(one.address)
    delete(world, pod)
    other, first = moved(session, [one.address], pod)
    one.kill()
    assert [session.count(two.address) for _ in range(3)] == [(other, first + n) for n in (1, 2, 3)]
    one.again()
    settled(world)
    assert [session.count(replica.address) for replica in (one, two)] == [(other, first + n) for n in (4, 5)]
    assert len(marks.homes("known")) == len(marks.of("begun", "known")) == 2, marks.of("begun", "known")


@scenario
def the_key_is_rotated(world: World) -> None:
    """sessions: a new key is added, then seals, then stands alone; whoever has both opens what either has sealed"""
    stage(world)
    one, two = replicas(world)
    session = Session(HOST, "old-key").begin(one.address)
    pod, _ = session.count(two.address)
    old = (one.folder / KEY).read_text().strip()
    new = base64.b64encode(os.urandom(32)).decode()
    written(two, old, new)
    written(one, new, old)
    # The key's own id stands in front of a token.
    until(lambda: Session(HOST, "new-key").begin(one.address).id[:9] != session.id[:9], 30, one.logs)
    later = Session(HOST, "new-key").begin(one.address)
    until(lambda: later.call(two.address, "count").status == 200, 30, two.logs)
    assert [session.count(replica.address) for replica in (one, two)] == [(pod, 2), (pod, 3)]
    for replica in (one, two):
        written(replica, new)
        until(lambda r=replica: session.call(r.address, "count").status == 404, 30, replica.logs)
        assert later.call(replica.address, "count").status == 200, replica.logs()
    # The Secret knows nothing of it.
    world.end_proxy()


def written(replica, *keys: str) -> None:
    """What a kubelet does some time after a Secret has changed; ours writes volumes once."""
    fresh = replica.folder / KEY.with_name("fresh")
    fresh.write_text("".join(f"{key}\n" for key in keys))
    fresh.rename(replica.folder / KEY)


def annotated(world: World, word: str | None) -> None:
    """The Service says so, and both replicas explain it."""
    mark = f"{MARK}={word}" if word else f"{MARK}-"
    world.plane.kubectl("-n", SPACE, "annotate", "--overwrite", "service", "tools", mark)
    explains = lambda pod: json.loads(told(pod, f"/explain?host={HOST}&path=/mcp"))  # noqa: E731
    wanted = word if word in ("pin", "pass") else "revive"
    for pod in replicas(world):
        until(lambda p=pod: explains(p)["applies"]["sessions"] == wanted, 30, lambda p=pod: explains(p))
        notes = [n for n in explains(pod)["chain"] if MARK in json.dumps(n)]
        if word is None:
            assert not notes, notes
        else:
            verdict = f"sessions: {word}" if wanted == word else "does not count: write revive, pin or pass"
            said = json.dumps(notes)
            assert f"{MARK} of Service {SPACE}/tools" in said and verdict in said, explains(pod)


@scenario
def a_service_says_pin_or_pass(world: World) -> None:
    """sessions: the Service's annotation pins sessions or leaves them alone, and explain says so"""
    _, marks = stage(world)
    one, two = addresses(world)
    try:
        annotated(world, "always")
        annotated(world, "pin")
        # By how each client is healed: a Python SDK 1.x loses all its calls by a 404.
        cases = [(Session(HOST, "pinned"), 404), (Session(HOST, "mcp", "0.1.0"), 400)]
        for session, status in cases:
            pod, _ = session.begin(one).count(two)
            delete(world, pod, "--grace-period=0", "--force")
            until(lambda p=pod: all(p not in known(world, r) for r in replicas(world)), 30, lambda: world.state(SPACE))
            answer = session.call(two, "count")
            assert (answer.status, answer.text, answer.session) == (status, "", None), answer
            assert len(marks.of("begun", session.name)) == 1, "it was begun anew"
            settled(world)
        annotated(world, "pass")
        # What it sends next goes to any pod: the other one would not know the session.
        session = Session(HOST, "passed").initialize(one)
        assert session.id == marks.of("begun", "passed")[0]["session"], session.id
    finally:
        annotated(world, None)


@scenario
def replicas_without_a_key(world: World) -> None:
    """sessions: two replicas without a common key pass ids as they are, and say so loudly"""
    _, marks = stage(world, sessions={"keyFiles": []})
    for pod in replicas(world):
        until(lambda p=pod: metric(p, "kagent_proxy_session_keys_split") == 1, 30, lambda p=pod: told(p, "/metrics"))
        session = Session(HOST, "keyless").initialize(pod.address)
        assert session.id == marks.of("begun", "keyless")[-1]["session"], session.id
        assert "several replicas and no key for sessions" in pod.containers[0].log.read_text(), pod.logs()
