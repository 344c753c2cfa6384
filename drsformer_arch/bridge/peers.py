"""The processes of a training: where each runs, and which are out of reach when a connection breaks.

Gloo and NCCL say that they waited in vain, not for whom.
"""

import contextlib
import json
import os
import socket
import stat
import sys
import time
from typing import Any, NamedTuple

from drsformer_arch.system.errors import first_few

PATIENCE = 3  # seconds until a machine that does not answer counts as out of reach
CALLS = 4096  # that wait, as nobody takes them; all processes of a training may call thrice
_met: "list[Peers]" = []  # of this process: the last one holds


class Peer(NamedTuple):
    """The place of a process: name of its machine, address and port at which it can be reached."""

    host: str
    address: str
    port: int


class Peers:
    """The places of all processes of a training.

    Each listens at a port and never takes a call: its system answers as long as the process lives.

    Args:
        store: of torch.distributed, which all processes share.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, store: Any, rank: int, world_size: int) -> None:
        self._rank = rank
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        self._listening = socket.create_server(("", 0), family=family, dualstack_ipv6=both, backlog=CALLS)
        here = Peer(socket.gethostname(), _own_address(), self._listening.getsockname()[1])
        store.set(f"peer_{rank}", json.dumps(here))
        self._peers = [Peer(*json.loads(text)) for text in store.multi_get([f"peer_{r}" for r in range(world_size)])]

    def lost(self) -> str | None:
        """Say which processes are out of reach or have ended; None where all are there."""
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - only where a connection broke

        others = [rank for rank in range(len(self._peers)) if rank != self._rank]
        for attempts_left in reversed(range(PATIENCE)):
            found = []
            with ThreadPoolExecutor(min(32, max(1, len(others)))) as threads:
                states = list(threads.map(self._state_of, others))
            for state in ("out of reach", "ended"):
                ranks = [rank for rank, each in zip(others, states, strict=True) if each == state]
                if ranks:
                    found.append(f"{state}: {first_few([self._named(rank) for rank in ranks])}")
            if found or not attempts_left:
                break
            time.sleep(1)  # a process that is being killed closes one connection after the other
        return "; ".join(found) or None

    def _named(self, rank: int) -> str:
        peer = self._peers[rank]
        return f"rank {rank} on {peer.host} ({peer.address})"

    def _state_of(self, rank: int) -> str:
        host, address, port = self._peers[rank]
        if host != self._peers[self._rank].host and address.startswith(("127.", "::1")):
            address = _meeting()  # Debian's /etc/hosts gives a machine's own name such an address
        try:
            socket.create_connection((address, port), PATIENCE).close()
        except ConnectionRefusedError:
            return "ended"
        except OSError:
            return "out of reach"
        return "there"


def meet(store: Any, rank: int, world_size: int) -> None:
    """Tell the other processes where this one runs, and learn where they do; blocks until all have told.

    Args:
        store: see `Peers`.
        rank: see `Peers`.
        world_size: see `Peers`.
    """
    _met[:] = [Peers(store, rank, world_size)]


def lost() -> str | None:
    """Say which processes of this training are out of reach or have ended; None where all are there, or it has none."""
    return _met[-1].lost() if _met else None


def break_silent_connections(seconds: int) -> None:
    """Let the open connections of this process fail where the other side is silent for so long.

    A machine that was cut off closes none, and whoever waits for its answer waits for a quarter of an hour.

    Args:
        seconds: of silence.
    """
    for name in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):  # what listed them has ended
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as connection:
                if connection.family in {socket.AF_INET, socket.AF_INET6}:
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, seconds // 3))
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 3))
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _own_address() -> str:
    """Find the address under which the machine where all meet sees this one."""
    for family, kind, _, _, master in socket.getaddrinfo(_meeting(), 9, type=socket.SOCK_DGRAM):
        with contextlib.suppress(OSError), socket.socket(family, kind) as sending:
            sending.connect(master)  # sends nothing
            return str(sending.getsockname()[0])
    return socket.gethostname()


def _meeting() -> str:
    return os.environ.get("MASTER_ADDR", "localhost")
