"""Hosts on one machine: each has its own name, network card, processes and mounts, and they share the files.

They are namespaces of Linux, and go with the process that made them, however it ends: nothing of the machine is
changed. A host's first process reads what never comes; the system ends all others of a host with it.
"""

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SWITCH = "switch"
LIMIT = 30  # seconds for what takes a fraction of one
FIRST_PROCESS = 'hostname "$1"; mount --bind "$2" /etc/hosts; ip link set lo up; echo ready; cat >/dev/null'
TOOLS = {"unshare": "util-linux", "nsenter": "util-linux", "mount": "mount", "ip": "iproute2"}


class Host:
    """A machine as its processes see it.

    Args:
        name: its host name.
        names: the file that stands as /etc/hosts there.
    """

    def __init__(self, name: str, names: Path) -> None:
        self.name = name
        apart = ["unshare", "--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
        self._outer = subprocess.Popen(
            [*apart, "bash", "-c", FIRST_PROCESS, "first", name, str(names)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._outer.stdout is not None
        assert self._outer.stdout.readline() == "ready\n", f"host {name} does not start"
        self.pid = int(Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text())

    def command(self, *command: str, folder: Path | str = "/") -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-a", f"--wd={folder}", *command]

    def start(self, *command: str, folder: Path | str = "/", **options: Any) -> subprocess.Popen:
        return subprocess.Popen(self.command(*command, folder=folder), **options)

    def run(self, *command: str, folder: Path | str = "/", expect: int | None = 0, **options: Any) -> str:
        """Run a command to its end and return what it says."""
        done = subprocess.run(
            self.command(*command, folder=folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **{"timeout": LIMIT, **options},
        )
        assert expect is None or done.returncode == expect, f"{command}: {done.stdout}"
        return done.stdout

    def ended(self) -> bool:
        return self._outer.poll() is not None

    def end(self) -> None:
        """End all processes of the host by SIGKILL, as a reset does; its network card goes with them."""
        self._outer.kill()
        self._outer.communicate()


class Hosts:
    """Hosts on one switch, `10.77.0.0/24` of their own.

    Args:
        names: of the hosts.
        folder: where their list of names is written.
    """

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}
        self._names = folder / "hosts"
        lines = [f"{address} {name}" for name, address in self.addresses.items()]
        self._names.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        self._by_name: dict[str, Host] = {}
        try:
            # Not on a host: what joins them must outlast each of them.
            self._between = Host(SWITCH, self._names)
            self._wire("add", SWITCH, "type", "bridge")
            self._wire("set", SWITCH, "up")
            for name in names:
                self.begin(name)
        except BaseException:
            self.end()
            raise

    def __getitem__(self, name: str) -> Host:
        return self._by_name[name]

    def begin(self, name: str) -> Host:
        """Start a host, also one that has ended, and connect it."""
        host = self._by_name[name] = Host(name, self._names)
        self._wire("add", name, "type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
        self._wire("set", name, "master", SWITCH, "up")
        host.run("ip", "address", "add", f"{self.addresses[name]}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        return host

    def cut(self, name: str) -> None:
        """Pull the cable of a host out of the switch: both sides hear nothing more, not even that it is so."""
        self._wire("set", name, "nomaster")

    def join(self, name: str) -> None:
        self._wire("set", name, "master", SWITCH)

    def die(self, name: str) -> None:
        """Take the power from a host: no connection is closed any more, everything on it ends."""
        self.cut(name)
        self._by_name[name].end()
        self._wire("delete", name)  # which would stay as long as connections of the dead wait for an answer

    def _wire(self, *command: str) -> str:
        # The network alone of those of the switch: another host's first process has no number there.
        ip = ["nsenter", "-t", str(self._between.pid), "-n", "ip", "link", *command]
        return subprocess.run(ip, check=True, capture_output=True, text=True, timeout=LIMIT).stdout

    def end(self) -> None:
        for host in (*self._by_name.values(), getattr(self, "_between", None)):
            if host is not None:
                host.end()


def missing(tools: dict[str, str]) -> str | None:
    """Say which Debian packages of commands are not installed, and how to get them."""
    lacking = {package for command, package in tools.items() if shutil.which(command) is None}
    return f"apt-get install {' '.join(sorted(lacking))}" if lacking else None


def wait_until(holds: Any, limit: float, said: Any = lambda: "") -> float:
    """Wait for a condition and return the seconds that it took."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < limit, f"not within {limit} s: {said()}"
        time.sleep(0.1)
    return time.monotonic() - begun
