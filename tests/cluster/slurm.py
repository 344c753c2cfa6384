"""A Slurm of one head and two nodes, each a host of its own on this machine, and what tests ask of its jobs."""

import re
from pathlib import Path

from tests.cluster.hosts import LIMIT, TOOLS, Hosts, wait_until
from tests.runs import ENVIRONMENT, several

TOOLS = {**TOOLS, "munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm"}
HEAD, NODES = "head", ("n1", "n2")
DIED = 10  # seconds of silence after which a node counts as dead; 300 where nobody sets SlurmdTimeout
KILL_WAIT = 30  # seconds between SIGTERM and SIGKILL, as by default
CONFIGURATION = """
ClusterName=rehearsal
SlurmctldHost=head
AuthType=auth/munge
# A job that is queued again begins when the credentials of its last start have gone, by default after two minutes.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1
# Processors that it has not: the script asks for 16 per task.
SlurmdParameters=config_overrides
SlurmdTimeout={died}
InactiveLimit=0
KillWait={kill_wait}
JobRequeue=1
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={nodes} CPUs=16 RealMemory=8000
PartitionName=usual Nodes={nodes} Default=YES PriorityTier=1
PartitionName=urgent Nodes={nodes} PriorityTier=10 PreemptMode=OFF
"""


class Cluster:
    """Slurm's daemons and commands.

    Args:
        folder: of its configuration, state and logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / "slurm.conf"
        file.write_text(CONFIGURATION.format(folder=folder, died=DIED, kill_wait=KILL_WAIT, nodes=",".join(NODES)))
        (folder / "state").mkdir()
        (folder / "munge.key").write_bytes(bytes(range(128)))
        (folder / "munge.key").chmod(0o400)
        self._environment = {**ENVIRONMENT, "SLURM_CONF": str(file)}
        self.hosts = Hosts((HEAD, *NODES), folder)
        try:
            self._start_daemons()
        except BaseException:
            self.hosts.end()
            raise

    def _start_daemons(self) -> None:
        files = [f"--{name}={self.folder}/munge.{name.split('-')[0]}" for name in ("socket", "key-file", "pid-file")]
        files += [f"--{name}={self.folder}/munge.{name.split('-')[0]}" for name in ("log-file", "seed-file")]
        self.hosts[HEAD].run("munged", "--force", *files)  # whose folder others may not enter
        self._daemon(HEAD, "slurmctld")
        for node in NODES:
            self._daemon(node, "slurmd", "-N", node)
        wait_until(lambda: self.states() == ["idle"] * len(NODES), LIMIT, lambda: f"{self.states()}\n{self.log()}")

    def _daemon(self, host: str, *command: str) -> None:
        with open(self.folder / f"{command[0]}.{host}.said", "a") as said:
            self.hosts[host].start(*command, "-D", env=self._environment, stdout=said, stderr=said)

    def say(self, *command: str, folder: Path | str = "/", expect: int | None = 0, **variables: str) -> str:
        """Run one of Slurm's commands on the head."""
        return self.hosts[HEAD].run(*command, folder=folder, expect=expect, env={**self._environment, **variables})

    def states(self) -> list[str]:
        """Tell how the nodes are: `idle`, `alloc`, `down*`."""
        return self.say("sinfo", "-h", "-p", "usual", "-N", "-o", "%t").split()

    def log(self) -> str:
        return "".join(file.read_text() for file in sorted(self.folder.glob("*.said")))

    def submit(self, folder: Path, *arguments: str, processes: int = 1) -> int:
        """Submit scripts/train_slurm.sh as its head says, from a folder that holds scripts/.

        Returns:
            number of the job.
        """
        variables = {**several(processes, restarts=3), "SLURM_CONF": self._environment["SLURM_CONF"]}
        said = self.say("sbatch", *arguments, folder=folder, **variables)
        return int(re.search(r"Submitted batch job (\d+)", said)[1])

    def urgent(self) -> int:
        """Submit a job that needs all nodes, to the partition that others make room for; it stays."""
        wanted = ["--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null"]
        return int(self.say("sbatch", "--parsable", *wanted, "--wrap=sleep 600"))

    def job(self, number: int | str) -> dict[str, str]:
        """Read what Slurm knows of a job: JobState, Reason, Restarts, ..."""
        return dict(re.findall(r"(\w+)=(\S*)", self.say("scontrol", "show", "job", str(number))))

    def wait_for(self, number: int | str, state: str, limit: float) -> float:
        """Wait until a job is so, and return the seconds that it took."""
        return wait_until(lambda: self.job(number)["JobState"] == state, limit, lambda: self.job(number))

    def die(self, node: str) -> None:
        self.hosts.die(node)

    def begin(self, node: str) -> None:
        """Switch a node on again."""
        self.hosts.begin(node)
        self._daemon(node, "slurmd", "-N", node)

    def empty(self) -> None:
        """End all jobs."""
        self.say("scancel", "-p", "usual")
        self.say("scancel", "-p", "urgent")
        for node in NODES:
            if self.hosts[node].ended():
                self.begin(node)
        try:
            wait_until(lambda: not self.say("squeue", "-h"), 2 * KILL_WAIT)
        except AssertionError:
            for node in NODES:
                self.die(node)
                self.begin(node)
        wait_until(lambda: self.states() == ["idle"] * len(NODES), 2 * LIMIT, self.states)

    def end(self) -> None:
        """End Slurm and all that it runs, at once."""
        self.hosts.end()


__all__ = ["DIED", "KILL_WAIT", "NODES", "TOOLS", "Cluster"]
