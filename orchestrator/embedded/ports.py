"""Finding a TCP port on the loopback interface."""

import random
import socket

LOOPBACK = "127.0.0.1"
# Below the range from which Linux (32768 and up) and macOS (49152 and up) take the ports of
# outgoing connections. A client that keeps retrying a dead server's port inside that range is
# sooner or later given the very port as its own, connects to itself, and the server can never
# come back. bind(0) hands out ports of exactly that range.
FIRST, LAST = 20_000, 32_000
TRIES = 50


def free_port() -> int:
    """Return a port that nobody listens on now; somebody may, a moment later."""
    for _ in range(TRIES):
        port = random.randint(FIRST, LAST)
        if is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port now."""
    with socket.socket() as probe:
        # As the servers do: connections that linger from a predecessor are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except PermissionError:
            return True  # a low port; the server's own message says it best
        except OSError:
            return False
    return True
