"""The faults, and what clients do while each happens. A fault ends when its world is whole again.

Clients whose session a fault touches are taken out of their traffic first: so it is known whether they are idle or
in mid-call when it happens. All others go on. After the fault each of them makes several calls at once.
"""

import asyncio
import dataclasses
import pathlib
import random
import signal
import time

import kinds
from clients import LIMIT_SECONDS, Call, Client
from processes import until, within
from ways import KEYS, Kagent, Replica
from world import Pod, World

# Kubernetes ends what does not end. Longer than the drain of the proxies.
PROXY_GRACE_SECONDS = 12
# How long a proxy waits for a pod that it does not know yet; later its sessions begin anew elsewhere.
LEARNING_SECONDS = 1


@dataclasses.dataclass
class Fault:
    name: str
    at: float = 0.0
    # Calls that were under way at it, and from when on an answer was possible.
    under_way: list[tuple[Call, float]] = dataclasses.field(default_factory=list)
    after: list[Call] = dataclasses.field(default_factory=list)


class Held:
    """Calls that have begun at their servers and wait there until [`release`]."""

    def __init__(self, gate: pathlib.Path, begun: list) -> None:
        self.gate, self.begun = gate, begun

    def release(self) -> None:
        self.gate.touch()

    async def answered(self) -> None:
        await within(2 * LIMIT_SECONDS, asyncio.gather(*(done for _, done in self.begun)), "held calls are answered")


class Faults:
    def __init__(self, world: World, seed: str) -> None:
        self.world, self.random = world, random.Random(seed)
        self.played: list[Fault] = []
        self.gates = 0

    def schedule(self, count: int, only: list[str]) -> list[str]:
        """Every fault that this way can have, or `only` these, in a random order, again and again."""
        names = [*ANYWHERE]
        if self.world.way.replicas:
            names += SEVERAL
        if isinstance(self.world.way, Kagent) and self.world.way.knows_sessions:
            names += OURS
        names = [name for name in names if not only or name in only]
        order: list[str] = []
        while names and len(order) < count:
            self.random.shuffle(names)
            order += names
        return order[:count]

    async def play(self, name: str) -> None:
        method, *arguments = name.split(" ")
        fault = Fault(name)
        self.played.append(fault)
        self.world.stage.story.tell(f"fault: {name}")
        await getattr(self, method)(fault, *arguments)
        self.world.stage.story.tell(f"fault is over: {name}")

    # === parts ===

    def _victim(self) -> Pod:
        """A pod with sessions, if there is one."""
        busy = [pod for pod in self.world.pods if self.world.at(pod)]
        return self.random.choice(busy or self.world.pods)

    async def _hold(self, clients: list[Client]) -> Held:
        self.gates += 1
        gate = self.world.stage.folder / f"gate-{self.gates}"
        begun = [client.begin(gate=str(gate)) for client in clients]
        marks = self.world.stage.marks

        def all_run() -> bool:
            return all(done.done() or marks.of(call.client, call.number) for call, done in begun)

        await until(all_run, 2 * LIMIT_SECONDS, "calls begin at their servers")
        return Held(gate, [(call, done) for call, done in begun if not done.done()])

    async def _whole(self, clients: list[Client]) -> list[Client]:
        await asyncio.gather(*(client.whole() for client in clients))
        return clients

    async def _burst(self, fault: Fault, clients: list[Client], many: bool = False) -> None:
        """Calls of each client at once: so `many` that it opens connections for them."""
        calls = []
        several = ["count", "count", "count"]
        for client in clients:
            for kind in several if many else self.random.choice([["count"], several, ["list", "count"], ["list"]]):
                calls.append(client.call(kind))
        fault.after += await asyncio.gather(*calls)

    def _now(self, fault: Fault, held: Held | None = None) -> None:
        fault.at = time.time()
        if held is not None:
            fault.under_way += [(call, fault.at) for call, _ in held.begun]

    def _taken(self, clients: list[Client]):
        return self.world.taken(clients)

    async def _here(self, pod: Pod, clients: list[Client]) -> list[Client]:
        """Those of them whose session works and is on this pod, now that they are taken."""
        return [client for client in self.world.at(pod) if client in clients and not client.broken]

    # === pods ===

    async def kill(self, fault: Fault, when: str, where: str) -> None:
        """A pod dies, and comes back at the same address or at another."""
        victim = self._victim()
        async with self._taken(around := self.world.at(victim)):
            clients = await self._here(victim, around)
            held = await self._hold(clients) if when == "mid-call" else None
            self._now(fault, held)
            await victim.kill()
            back = asyncio.create_task(self._replace(victim, where))
            await self._burst(fault, clients)
            if held is not None:
                await held.answered()
            await back

    async def _replace(self, victim: Pod, where: str) -> None:
        if where == "same":
            await self.world.again(victim)
        else:
            await self.world.endpoints(victim)
            await self.world.endpoints(joined=await self.world.fresh_pod())

    async def lag(self, fault: Fault, when: str) -> None:
        """A pod dies, and the endpoints name it for as long as clients call."""
        victim = self._victim()
        async with self._taken(around := self.world.at(victim)):
            clients = await self._here(victim, around)
            held = await self._hold(clients) if when == "mid-call" else None
            self._now(fault, held)
            await victim.kill()
            await self._burst(fault, clients)
            if held is not None:
                await held.answered()
            await self._burst(fault, clients)
            await self.world.endpoints(victim, joined=await self.world.fresh_pod())

    async def early(self, fault: Fault) -> None:
        """The endpoints name a pod that does not listen yet."""
        new = await self.world.fresh_pod()
        self._now(fault)
        await new.kill()
        await self.world.endpoints(joined=new)
        async with self._taken(self.world.clients[::2]):
            some = self.world.clients[::2]
            await self._anew(some)
            await self._burst(fault, some)
        await self.world.again(new)
        await self._leave(fault, self._victim(), "told")

    async def flap(self, fault: Fault) -> None:
        """A pod that lives leaves the endpoints, as one that is not ready, and comes back."""
        pod = self._victim()
        async with self._taken(around := self.world.at(pod)):
            clients = await self._here(pod, around)
            self._now(fault)
            await self.world.endpoints(pod)
            await self._burst(fault, clients)
            await self.world.endpoints(joined=pod)
            await self._burst(fault, clients)

    async def behind(self, fault: Fault, seconds: str) -> None:
        """One replica knows a new pod so much later than the other, and is asked for its sessions meanwhile."""
        first, second = self.random.sample(self.world.way.replicas, 2)
        way, new = self.world.way, await self.world.fresh_pod()
        # The others keep connections that their sessions share, so one that began by `first` may go on by `second`.
        own = [client for client in self.world.clients if not client.base.startswith(kinds.SHARES)]
        async with self._taken(self.world.clients):
            way.service.remove(second.port)
            if float(seconds) > LEARNING_SECONDS:
                new.away.append([time.time(), float("inf")])
            await self.world.joins(new, first)
            for _ in range(20):  # who has the new pod is left to chance
                await self._anew(own)
                if not own or self.world.at(new):
                    break
            way.service.admit(second.port)
            way.service.remove(first.port)
            clients = await self._here(new, own)
            self._now(fault)
            knows = asyncio.create_task(self._knows_after(float(seconds), new, second))
            await self._burst(fault, clients, many=True)
            await knows
            way.service.admit(first.port)
            await self._burst(fault, clients)
        await self._leave(fault, self._victim(), "told")

    async def _knows_after(self, seconds: float, new: Pod, replica: Replica) -> None:
        await asyncio.sleep(seconds)  # the fault itself
        await self.world.joins(new, replica)
        if new.away:
            new.away[-1][1] = time.time()

    async def roll(self, fault: Fault, order: str) -> None:
        """A pod is replaced: a new one, then SIGTERM while its calls are under way."""
        old, new = self._victim(), await self.world.fresh_pod()
        await self.world.endpoints(joined=new)
        await self._leave(fault, old, order)

    async def restart(self, fault: Fault) -> None:
        """SIGTERM with calls under way, then a new process at the same address."""
        old = self._victim()
        async with self._taken(around := self.world.at(old)):
            clients = await self._here(old, around)
            held = await self._hold(clients)
            self._now(fault, held)
            ends = asyncio.create_task(old.terminate())
            held.release()
            await held.answered()
            await ends
            back = asyncio.create_task(self.world.again(old))
            await self._burst(fault, clients)
            await back

    async def scale(self, fault: Fault, where: str) -> None:
        if where == "out" and len(self.world.pods) < 5:
            self._now(fault)
            await self.world.endpoints(joined=await self.world.fresh_pod())
        elif len(self.world.pods) > 2:
            await self._leave(fault, self._victim(), "told")

    async def _leave(self, fault: Fault, old: Pod, order: str) -> None:
        """A pod goes in good order; the endpoints say so before its SIGTERM, or after."""
        async with self._taken(around := self.world.at(old)):
            clients = await self._here(old, around)
            held = await self._hold(clients)
            self._now(fault)
            if order == "told":
                await self.world.endpoints(old)
            ends = asyncio.create_task(old.terminate())
            held.release()
            fault.under_way += [(call, time.time()) for call, _ in held.begun]
            if order == "lagging":
                await self._burst(fault, clients)
                await self.world.endpoints(old)
            await held.answered()
            await self._burst(fault, clients)
            await ends

    async def forget(self, fault: Fault) -> None:
        """A server drops its sessions, as one does with idle ones."""
        pod = self._victim()
        async with self._taken(around := self.world.at(pod)):
            clients = await self._here(pod, around)
            marks = self.world.stage.marks
            before = len(marks.forgot(pod.name))
            self._now(fault)
            pod.process.send(signal.SIGUSR1)
            await until(lambda: len(marks.forgot(pod.name)) > before, 10, f"{pod.name} forgets")
            self.world.forgot.append((pod.name, fault.at, marks.forgot(pod.name)[-1]))
            await self._burst(fault, clients)

    async def outage(self, fault: Fault) -> None:
        """Every pod dies at once, and comes back where it was; calls begin meanwhile."""
        async with self._taken(self.world.clients):
            clients = [client for client in self.world.clients if not client.broken]
            pods = list(self.world.pods)
            self._now(fault)
            await asyncio.gather(*(pod.kill() for pod in pods))
            burst = asyncio.create_task(self._burst(fault, clients))
            await asyncio.gather(*(self.world.again(pod) for pod in pods))
            await burst

    # === proxies ===

    async def _anew(self, clients: list[Client]) -> None:
        for client in clients:
            await client.close()
            await client.open()

    async def _may_break(self) -> None:
        """Every GET stream may break now; sessions of clients that take no second break begin anew."""
        fragile = [client for client in self.world.clients if client.base.startswith(kinds.FRAGILE)]
        await self._anew([client for client in fragile if client.breaks])
        for client in self.world.clients:
            client.breaks += 1

    async def _seen(self, port: int) -> None:
        """A client that sends just when its connection ends loses that call, whoever is at the other side."""
        await self.world.way.service.gone(port)
        await asyncio.gather(*(client.awake() for client in self.world.clients))

    async def proxy(self, fault: Fault, when: str) -> None:
        """A replica of the proxy dies: GET streams are open in it, and calls are under way in the other one or none."""
        replica = self.random.choice(self.world.way.replicas)
        async with self._taken(self.world.clients):
            await self._may_break()
            clients = [client for client in self.world.clients if not client.broken]
            held = await self._hold_beside(replica, clients) if when == "mid-call" else []
            self._now(fault)
            await replica.kill()
            await self._seen(replica.port)
            self.world.replica_losses.append((fault.at, time.time()))
            back = asyncio.create_task(replica.start())
            await self._burst(fault, clients)
            for one in held:
                one.release()
                fault.under_way += [(call, time.time()) for call, _ in one.begun]
                await one.answered()
            await back

    async def _hold_beside(self, replica: Replica, clients: list[Client]) -> list[Held]:
        """Calls that are under way, none of them in this replica."""
        beside = []
        for client in clients:
            held = await self._hold([client])
            if await self.world.way.service.last() == replica.port:
                held.release()
                await held.answered()
            else:
                beside.append(held)
        return beside

    async def proxies(self, fault: Fault) -> None:
        """Both replicas are replaced, one after the other, under load and with calls under way."""
        self._now(fault)
        for replica in self.world.way.replicas:
            some = self.random.sample(self.world.clients, len(self.world.clients) // 2)
            async with self._taken(some):
                held = await self._hold(await self._whole(some))
                begin = time.time()
                ends = asyncio.create_task(replica.terminate(PROXY_GRACE_SECONDS))
                await asyncio.sleep(0)  # the replica is out of the Service from here on
                await self._burst(fault, some)
                held.release()
                fault.under_way += [(call, time.time()) for call, _ in held.begun]
                await held.answered()
            ended = await ends
            self.world.replica_losses.append((begin, time.time()))
            self.world.stage.story.tell(f"replica {replica.number} " + ("ended" if ended else "had to be killed"))
            await replica.start()

    async def key(self, fault: Fault) -> None:
        """The session key is rotated; sessions of older keys go on."""
        old = [c for c in self.world.clients if c.rotation <= self.world.rotation - (KEYS - 2)]
        async with self._taken(old):  # the key of these is about to go, as it would after `maxAge`
            await self._anew(old)
        self._now(fault)
        await self.world.way.rotate()
        self.world.rotation += 1
        async with self._taken(self.world.clients):
            await self._burst(fault, [client for client in self.world.clients if not client.broken])

    async def peer(self, fault: Fault) -> None:
        """A replica hangs while the other has sessions to revive."""
        hangs = self.random.choice(self.world.way.replicas)
        victim = self._victim()
        async with self._taken(self.world.clients):
            await self._may_break()
            clients = [client for client in self.world.clients if not client.broken]
            self.world.way.service.remove(hangs.port)
            self.world.way.service.cut(hangs.port)
            hangs.process.send(signal.SIGSTOP)
            await self._seen(hangs.port)
            try:
                self._now(fault)
                await victim.kill()
                await self._burst(fault, clients)
            finally:
                hangs.process.send(signal.SIGCONT)
                # What it alone remembered could not be asked for. When it is back, both must agree again.
                self.world.replica_losses.append((fault.at, time.time()))
            await self.world.again(victim)
            while not await self.world.way.is_ready(hangs):
                await asyncio.sleep(0.02)  # between two looks
            self.world.way.service.admit(hangs.port)
            await self._burst(fault, clients)


# Faults by what a way must have. The words after a method's name are its arguments.
ANYWHERE = ["kill idle same", "kill mid-call same", "restart", "forget", "outage"]
SEVERAL = [
    "kill idle moved", "kill mid-call moved", "lag idle", "lag mid-call", "early", "roll told", "roll lagging",
    "scale out", "scale in", "flap", "behind 0.5", "behind 3", "proxy idle", "proxy mid-call", "proxies",
]  # fmt: skip
OURS = ["key", "peer"]
