"""A relay of connections between the pods and the API server, which tests cut, refuse and freeze.

It passes bytes and reads none: TLS goes through. What happens to the API server itself is `plane.py`'s matter.
"""

import contextlib
import socket
import struct
import threading


class Relay:
    """Listens at `address`, on a port of its own, for what listens at `to`."""

    def __init__(self, address: str, to: tuple[str, int]) -> None:
        self.to = to
        self.listener = socket.create_server((address, 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.open: set[socket.socket] = set()
        self.refusing = False
        self.flowing = threading.Event()
        self.flowing.set()
        self.accepted = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.refusing:
                reset(client)
                continue
            try:
                server = socket.create_connection(self.to, 5)
            except OSError:
                reset(client)
                continue
            server.settimeout(None)
            with self.lock:
                self.accepted += 1
                self.open |= {client, server}
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self.pump, args=(one, other), daemon=True).start()

    def pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                self.flowing.wait()
                other.sendall(data)
        except OSError:
            pass
        finally:
            with self.lock:
                self.open -= {one, other}
            for end in (one, other):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            one.close()

    def cut(self) -> int:
        """Resets every connection; new ones are taken. Says how many there were."""
        with self.lock:
            ends, self.open = list(self.open), set()
        for end in ends:
            # The other side of `shutdown` is a FIN; a broken network looks like that or worse.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        return len(ends) // 2

    @contextlib.contextmanager
    def refused(self):
        """No connection at all while it lasts."""
        self.refusing = True
        self.cut()
        try:
            yield
        finally:
            self.refusing = False

    @contextlib.contextmanager
    def frozen(self):
        """Connections stay, and not a byte passes."""
        self.flowing.clear()
        try:
            yield
        finally:
            self.flowing.set()

    def close(self) -> None:
        self.listener.close()
        self.flowing.set()
        self.cut()


def reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()
