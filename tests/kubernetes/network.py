"""The pods' network: one bridge, and for each pod a network namespace with an address of its own.

Runs on the ground that `ground.py` makes, so names need not be unique and nothing has to be removed at the
end. Addresses go round before one is given again, and an address always has the same hardware address, so a
neighbour table is never wrong about it.
"""

import ctypes
import ipaddress
import os
import socket
import subprocess
import threading

BRIDGE = "pods"
GATEWAY = "10.201.0.1"
GATEWAY6 = "fd00:201::1"
CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3
libc = ctypes.CDLL(None, use_errno=True)


def ip(*arguments: str, batch: str = "") -> None:
    command = ["ip", *arguments, *(["-batch", "-"] if batch else [])]
    done = subprocess.run(command, input=batch, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{' '.join(command)}\n{batch}{done.stderr}"


class Network:
    """The bridge and who has which address."""

    def __init__(self, first: int = 1, last: int = 250) -> None:
        self.lock = threading.Lock()
        self.free = list(range(first, last + 1))
        ip(
            batch=f"link add {BRIDGE} type bridge\n"
            f"addr add {GATEWAY}/16 dev {BRIDGE}\n"
            f"addr add {GATEWAY6}/64 dev {BRIDGE} nodad\n"
            f"link set {BRIDGE} up\n"
        )

    def join(self) -> "Place":
        with self.lock:
            number = self.free.pop(0)
        return Place(self, number)

    def prefer(self, number: int) -> None:
        """Makes a free address the next one that is given."""
        with self.lock:
            self.free.remove(number)
            self.free.insert(0, number)

    def left(self, number: int) -> None:
        with self.lock:
            self.free.append(number)


class Place:
    """A network namespace with an IPv4 and an IPv6 address."""

    def __init__(self, network: Network, number: int) -> None:
        self.network, self.number, self.name = network, number, f"pod{number}"
        self.address = str(ipaddress.ip_address("10.201.1.0") + number)
        self.address6 = str(ipaddress.ip_address("fd00:201::1:0") + number)
        hardware = f"02:00:0a:c9:01:{number:02x}"
        ip(
            batch=f"netns add {self.name}\n"
            f"link add {self.name} type veth peer name eth0 address {hardware} netns {self.name}\n"
            f"link set {self.name} master {BRIDGE} up\n"
        )
        ip(
            "-n",
            self.name,
            batch="link set lo up\n"
            f"addr add {self.address}/16 dev eth0\n"
            f"addr add {self.address6}/64 dev eth0 nodad\n"
            "link set eth0 up\n"
            f"route add default via {GATEWAY}\n",
        )

    def leave(self) -> None:
        ip("netns", "del", self.name)
        # The pair ends with the namespace, but a moment later; the name must be free for the next pod.
        subprocess.run(["ip", "link", "del", self.name], capture_output=True, timeout=30)
        self.network.left(self.number)

    def socket(self, address: tuple[str, int], timeout: float) -> socket.socket:
        """A connection that comes from this pod."""
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        made = self.inside(lambda: socket.socket(family, socket.SOCK_STREAM))
        made.settimeout(timeout)
        made.connect(address)
        return made

    def packets(self) -> "socket.socket":
        """Every packet of this pod's links."""
        return self.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)))

    def inside(self, make) -> "socket.socket":
        """A socket belongs to the namespace it is made in."""
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            enter(there)
            try:
                return make()
            finally:
                enter(here)
        finally:
            os.close(here)
            os.close(there)


def enter(namespace: int) -> None:
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
