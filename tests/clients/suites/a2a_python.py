"""The Python A2A SDK on both sides: 0.3.26, and 1.x with its 1.0 protocol and its 0.3 compatibility, over JSON-RPC and
HTTP+JSON.

These clients follow the URLs of the agent card, as a2a-go does: the counts show that they stay. With two agents behind
one route, each with the tasks in its own memory, they see what they see with one.
"""

import re

from harness import HERE, Results, Stage, free_port, python, run_suite

# What a client is told to speak, of each SDK, and how many of its calls follow for a task.
SPOKEN = [([[]], 3), ([[binding, version] for binding in ("JSONRPC", "HTTP+JSON") for version in ("1.0", "0.3")], 4)]


def run(results: Results, stage: Stage, interpreters: tuple[str, str]) -> None:
    for number, interpreter in enumerate(interpreters):
        port, other = free_port(), free_port()
        for at in (port, other):
            server = [interpreter, HERE / "python" / f"server_a2a_{number}.py", at]
            stage.start(f"server-{number}-{at}", server, at)
        spoken, follow = SPOKEN[number]
        for version in spoken:
            proxy = stage.proxy({"agent.ns": port})
            client = [interpreter, HERE / "python" / f"client_a2a_{number}.py", *version]
            direct = stage.client(client, f"http://127.0.0.1:{port}", "agent.ns")
            name = " ".join([f"sdk-{number}", *version])
            results.check(f"{name} direct goes around", not proxy.lines(), proxy.lines())
            proxied = stage.client(client, proxy.url, "agent.ns")
            results.compare(name, direct, proxied)
            # The card, and six calls: send, stream, a stream left, a cancellation, gets. Of SDK 1 two more: the stream
            # again, and the extended card, whose signature would not hold.
            results.through(name, proxy, "agent.ns", 7 if number == 0 else 9)
            cards = dict(re.findall(r'cards_total\{route="agent.ns",result="(\w+)"\} (\d+)', proxy.metrics()))
            expected = {"rewritten": "1", "passed": "0", "signature_removed": "0", "interface_left_out": "0"}
            if number == 1:
                expected |= {"rewritten": "2", "signature_removed": "1"}
            results.check(f"{name} cards", cards == expected, cards)
            two = stage.proxy({"agent.ns": [port, other]})
            # Several calls follow for a task: by luck they reach its agent once, and hardly four times.
            seen = [stage.client(client, two.url, "agent.ns") for _ in range(4)]
            results.check(f"{name} two agents", all(one == direct for one in seen), f"direct {direct}, {seen}")
            tasks = re.findall(r'event="task".*? (\d+)', two.metrics())
            results.check(f"{name} tasks were found", tasks == [str(4 * follow)], tasks)


run_suite("a2a-python", lambda: (python("a2a-0"), python("a2a-1")), run)
