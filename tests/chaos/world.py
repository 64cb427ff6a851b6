"""The world of a round: pods of one kind, the way to them, clients; and when which session may be lost."""

import asyncio
import contextlib
import time

import kinds
from clients import Agents, Client, Ledger
from processes import Process, Stage
from ways import HOST, Direct, new_port

# What a pod gets between SIGTERM and SIGKILL. A kubelet gives 30 s; a run has many pods.
GRACE_SECONDS = 3
FAR = float("inf")
# As many clients as this call as often as they like; more of them call less often each.
FEW = 24


class Pod:
    """One incarnation of a server: a process at an address. A restart at the same address is another pod."""

    def __init__(self, world: "World", port: int) -> None:
        world.pod_count += 1
        self.world, self.port, self.name = world, port, f"p{world.pod_count}"
        command = kinds.server(world.kind, port, self.name, world.stage.marks.path, world.unknown)
        self.process = Process(world.stage, self.name, command)
        self.leaves: float = FAR  # from when on its calls may be lost, and its sessions
        self.ended: float = FAR
        # Times in which some proxy did not have it among its endpoints: its sessions may go elsewhere, its calls go on.
        self.away: list[list[float]] = []

    def tell(self, text: str) -> None:
        self.world.stage.story.tell(f"pod {self.name} at {self.port} {text}")

    async def start(self) -> "Pod":
        await self.process.start(self.port)
        self.tell("listens")
        return self

    async def kill(self) -> None:
        self.leaves = min(self.leaves, time.time())
        self.tell("is killed")
        await self.process.kill()
        self.ended = time.time()

    async def terminate(self) -> None:
        self.leaves = min(self.leaves, time.time())
        self.tell("gets SIGTERM")
        by_itself = await self.process.terminate(GRACE_SECONDS)
        self.ended = time.time()
        self.tell("ended" if by_itself else "was killed at the end of its grace period")


class World:
    def __init__(self, stage: Stage, way: object, kind: str, unknown: str) -> None:
        self.stage, self.way, self.kind, self.unknown = stage, way, kind, unknown
        self.pod_count = 0
        self.rotation = 0  # of the session key
        self.pods: list[Pod] = []  # in the order in which they came
        self.every_pod: dict[str, Pod] = {}
        self.forgot: list[tuple[str, float, float]] = []  # pod, from, to
        self.replica_losses: list[tuple[float, float]] = []  # from, to
        self.ledger = Ledger()
        self.agents: list[Agents] = []
        self.clients: list[Client] = []
        self._spare: asyncio.Task | None = None

    async def start(self, agents: list[str], sessions: int, seed: str) -> None:
        pods = [self._new(new_port()) for _ in range(self.way.pods)]
        self.pods = list(await asyncio.gather(*(pod.start() for pod in pods)))
        await self.way.start([pod.port for pod in self.pods])
        self.prepare_spare()
        for kind in agents:
            process = Agents(self.stage, kind, kinds.agent(kind, self.way.url, HOST))
            await process.start()
            self.agents.append(process)
            for number in range(sessions):
                base = f"{kind}-{number}"
                client = Client(process, base, self.ledger, f"{seed} {base}")
                client.rotations = lambda: self.rotation
                self.clients.append(client)
        for client in self.clients:
            client.pace *= max(1, len(self.clients) / FEW)
        await asyncio.gather(*(client.open() for client in self.clients))

    async def close(self) -> None:
        if self._spare is not None:
            self._spare.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._spare
        for agents in self.agents:
            await agents.stop()
        await self.way.close()
        await self.stage.close()

    # === pods ===

    def _new(self, port: int) -> Pod:
        pod = Pod(self, port)
        self.every_pod[pod.name] = pod
        return pod

    def prepare_spare(self) -> None:
        """A pod that is not an endpoint yet, started beside everything else."""
        if not isinstance(self.way, Direct):
            self._spare = asyncio.create_task(self._new(new_port()).start())

    async def fresh_pod(self) -> Pod:
        """A running pod at an address of its own; not an endpoint yet."""
        pod = await self._spare
        self.prepare_spare()
        return pod

    async def again(self, pod: Pod) -> Pod:
        """The next incarnation at a dead pod's address."""
        new = self._new(pod.port)
        self.pods[self.pods.index(pod)] = new
        return await new.start()

    async def endpoints(self, *left: Pod, joined: Pod | None = None) -> None:
        """Takes pods out of the endpoints, or puts one in, and waits until the proxies have followed."""
        for pod in left:
            pod.away.append([time.time(), FAR])
        self.pods = [pod for pod in self.pods if pod not in left] + ([joined] if joined else [])
        await self.tell_endpoints()
        if joined and joined.away:
            joined.away[-1][1] = time.time()

    async def joins(self, pod: Pod, replica: object) -> None:
        """Puts a pod in, for this replica alone, and waits until it has followed."""
        if pod not in self.pods:
            self.pods = [*self.pods, pod]
        self.stage.story.tell(f"endpoints of replica {replica.number} become {', '.join(p.name for p in self.pods)}")
        await self.way.endpoints([pod.port for pod in self.pods], replica)

    async def tell_endpoints(self) -> None:
        names = ", ".join(pod.name for pod in self.pods)
        self.stage.story.tell(f"endpoints become {names}")
        await self.way.endpoints([pod.port for pod in self.pods])
        self.stage.story.tell(f"endpoints are {names}")

    def at(self, *pods: Pod) -> list[Client]:
        """The clients whose session is there, by their last call."""
        names = {pod.name for pod in pods}
        return [client for client in self.clients if self.stage.marks.pod(client.name) in names]

    @contextlib.asynccontextmanager
    async def taken(self, clients: list[Client]):
        """These clients do nothing by themselves for the time, and have a session and no call under way."""
        async with contextlib.AsyncExitStack() as stack:
            for client in clients:
                await stack.enter_async_context(client.lock)
            yield
