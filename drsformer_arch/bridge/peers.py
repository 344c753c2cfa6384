"""The processes of a training: where each runs, and which are out of reach when a connection breaks.

Gloo and NCCL say that they waited in vain, not for whom.
"""

import contextlib
import json
import os
import socket
import stat
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from drsformer_arch.system.errors import first_few

PATIENCE = 3  # seconds until a machine that does not answer counts as out of reach
_met: "list[Peers]" = []  # of this process: the last one holds


class Peer(NamedTuple):
    """Where a process runs: name of its machine, address and port at which it can be reached."""

    host: str
    address: str
    port: int


class Peers:
    """Where all processes of a training run.

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
        self._listening = socket.create_server(("", 0), family=family, dualstack_ipv6=both)
        here = Peer(socket.gethostname(), _own_address(), self._listening.getsockname()[1])
        store.set(f"peer_{rank}", json.dumps(here))
        self._peers = [Peer(*json.loads(text)) for text in store.multi_get([f"peer_{r}" for r in range(world_size)])]

    def lost(self) -> str | None:
        """Say which processes are out of reach or have ended; None where all are there."""
        here = self._peers[self._rank]
        others = {rank: peer for rank, peer in enumerate(self._peers) if rank != self._rank}
        with ThreadPoolExecutor(min(32, max(1, len(others)))) as threads:
            states = dict(zip(others, threads.map(lambda peer: _state_of(peer, here), others.values()), strict=True))
        found = []
        for state, words in (("unreachable", "out of reach"), ("ended", "ended")):
            ranks = [rank for rank in others if states[rank] == state]
            if ranks:
                found.append(f"{words}: {_named(ranks, self._peers)}")
        return "; ".join(found) or None


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


def _named(ranks: Iterable[int], peers: list[Peer]) -> str:
    return first_few([f"rank {rank} on {peers[rank].host} ({peers[rank].address})" for rank in ranks])


def _own_address() -> str:
    """Find the address under which the machine where all meet sees this one."""
    for family, kind, _, _, master in socket.getaddrinfo(_meeting(), 9, type=socket.SOCK_DGRAM):
        with contextlib.suppress(OSError), socket.socket(family, kind) as sending:
            sending.connect(master)  # sends nothing
            return str(sending.getsockname()[0])
    return socket.gethostname()


def _meeting() -> str:
    return os.environ.get("MASTER_ADDR", "localhost")


def _state_of(peer: Peer, here: Peer) -> str:
    address = peer.address
    if peer.host != here.host and address.startswith(("127.", "::1")):  # as Debian's /etc/hosts names the own machine
        address = _meeting()
    try:
        socket.create_connection((address, peer.port), PATIENCE).close()
    except ConnectionRefusedError:
        return "ended"
    except OSError:
        return "unreachable"
    return "there"
