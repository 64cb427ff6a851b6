"""What a pod was asked, what it sent to others and what became of it, read from its own link.

From outside nobody can tell whether a request that failed was sent on a reused connection, and D11 asks just that.
Follows plain HTTP/1.1 over IPv4 and knows calls by their `call=` in the query. It judges nothing.
"""

import dataclasses
import re
import socket
import struct
import threading

from network import Place

CALL = re.compile(rb"([A-Z]+) \S*[?&]call=([\w-]+)")
FIN, SYN, RST = 1, 2, 4
IPV4, TCP = b"\x08\x00", 6
ETHERNET = 14
# Of a packet: the headers and the request line.
ENOUGH = 400
# Beyond the limit for all, for a busy machine reads late; Python does not name the option.
SO_RCVBUFFORCE = 33
BUFFER = 64 * 1024 * 1024
# Neither does it name these (linux/if_packet.h).
SOL_PACKET, PACKET_STATISTICS = 263, 6


@dataclasses.dataclass
class Sent:
    """One request on one connection."""

    method: str
    to: str
    reused: bool
    answered: bool = False
    # By the one it was sent to, before a byte of an answer.
    closed: bool = False


@dataclasses.dataclass
class Connection:
    requests: int = 0
    newest: int = -1
    closed: bool = False
    last: Sent | None = None


class Wire(threading.Thread):
    """Listens on a pod's link until the block ends.

    `asked` then has every call that came to the pod's port, and `sent` every attempt of it to one of the `ports`.
    """

    def __init__(self, place: Place, port: int, ports: set[int]) -> None:
        super().__init__(daemon=True)
        self.own, self.port, self.ports = socket.inet_aton(place.address), port, ports
        self.asked: set[str] = set()
        self.sent: dict[str, list[Sent]] = {}
        self.connections: dict[tuple[int, bytes, int], Connection] = {}
        self.over = threading.Event()
        # Packets that came faster than they were read: of these we know nothing.
        self.missed = 0
        self.packets = place.packets()
        self.packets.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        self.packets.settimeout(0.2)

    def __enter__(self) -> "Wire":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.join(60)
        _, self.missed = struct.unpack("II", self.packets.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self.packets.close()

    def run(self) -> None:
        while True:
            try:
                self.read(self.packets.recv(ENOUGH))
            except TimeoutError:
                # All that came before the end has been read.
                if self.over.is_set():
                    return

    def read(self, packet: bytes) -> None:
        if packet[12:14] != IPV4 or packet[ETHERNET + 9] != TCP:
            return
        head = (packet[ETHERNET] & 15) * 4
        whole = int.from_bytes(packet[ETHERNET + 2 : ETHERNET + 4])
        source, target = packet[ETHERNET + 12 : ETHERNET + 16], packet[ETHERNET + 16 : ETHERNET + 20]
        segment = packet[ETHERNET + head :]
        ours, theirs, number = struct.unpack("!HHI", segment[:8])
        offset, flags = (segment[12] >> 4) * 4, segment[13]
        size = whole - head - offset
        if target == self.own and theirs == self.port:
            if found := CALL.match(segment[offset:]):
                self.asked.add(found[2].decode())
        elif source == self.own and theirs in self.ports:
            self.out((ours, target, theirs), flags, number, segment[offset:], size)
        elif target == self.own and ours in self.ports:
            self.back((theirs, source, ours), flags, size)

    def out(self, key: tuple[int, bytes, int], flags: int, number: int, data: bytes, size: int) -> None:
        if flags & SYN:
            self.connections[key] = Connection()
            return
        # One that is older than we are has been used before.
        connection = self.connections.setdefault(key, Connection(requests=1))
        # What is sent again after a loss is no other request.
        if not size or number == connection.newest:
            return
        connection.newest = number
        if found := CALL.match(data):
            method, to = found[1].decode(), socket.inet_ntoa(key[1])
            # It may have been closed already, and the end not been noticed.
            connection.last = Sent(method, to, reused=connection.requests > 0, closed=connection.closed)
            connection.requests += 1
            self.sent.setdefault(found[2].decode(), []).append(connection.last)

    def back(self, key: tuple[int, bytes, int], flags: int, size: int) -> None:
        connection = self.connections.get(key)
        if connection is None:
            return
        connection.closed |= bool(flags & (FIN | RST))
        if connection.last is None or connection.last.answered:
            return
        connection.last.answered = size > 0
        connection.last.closed = connection.closed and not size
