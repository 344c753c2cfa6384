"""Start the processes of a training on this machine, and start all again after a crash.

It is torchrun's agent, taught our exit codes, which torchrun does not look at: a mistake is not repeated, a stop saves
however long that takes, and all machines end together.
"""

import argparse
import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousError, RendezvousParameters, RendezvousTimeoutError, registry

from drsformer_arch.bridge import peers
from drsformer_arch.bridge.trouble import EXIT_TROUBLE, MachineError
from drsformer_arch.system import processor
from drsformer_arch.system.errors import (
    EXIT_INTERRUPTED,
    EXIT_STOPPED,
    EXIT_USER_ERROR,
    GIVEN_UP,
    LONGEST_REASON,
    UserError,
)

PORT = 29500  # torchrun's
STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
# Keys of the store that the machines share: the exit code with which one of them ended, and how many know it.
ENDED, KNOWN = "drsformer_ended", "drsformer_known"
PATIENCE = 30  # seconds within which all machines learn that one has ended
GRACE = 5  # seconds for processes to end in whose job nothing can be saved any more
_FINAL = (EXIT_USER_ERROR, EXIT_STOPPED, EXIT_INTERRUPTED)  # codes that starting again does not cure, in this order


class Job(NamedTuple):
    """The processes that are started, and where.

    Attributes:
        processes: on this machine.
        machines: of the job, each with as many processes.
        meeting: host and port where they meet; empty with one machine.
        name: equal on all machines, of no other job that meets there.
        restarts: how often a crash is answered by starting again.
        checks: first, in a process of its own, whether the training can start.
    """

    processes: int
    machines: int
    meeting: str
    name: str
    restarts: int
    checks: bool

    @property
    def world_size(self) -> int:
        """Count the processes of all machines."""
        return self.processes * self.machines


def job_of(processes: str, environment: Mapping[str, str]) -> Job:
    """Read what `--processes` and the variables say that scripts/train_distributed.sh describes.

    Raises:
        UserError: one of them is no number, or there is no machine to meet at.
    """
    machines = _number("NODES", environment.get("NODES") or "1")
    meeting = environment.get("MASTER", "") if machines > 1 else ""
    if machines > 1 and not meeting:
        raise UserError(f"NODES is {machines}: set MASTER to the name of the machine where they meet, on all of them")
    if meeting and ":" not in meeting:
        meeting = f"{meeting}:{PORT}"
    started = max(1, torch.cuda.device_count()) if processes == "auto" else _number("--processes", processes)
    restarts = _number("RESTARTS", environment.get("RESTARTS") or "3", least=0)
    checks = environment.get("CHECK") != "no"
    return Job(started, machines, meeting, environment.get("JOB") or "drsformer", restarts, checks)


def _number(name: str, text: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{name} must be a whole number from {least}, not {text!r}")
    return int(text)


def launch(args: argparse.Namespace, job: Job) -> int:
    """Run a training in several processes until it ended.

    Args:
        args: of `drsformer train`.
        job: what to start; without `--auto_resume` nothing is started again, as it would begin anew.

    Returns:
        the exit code of the training: that of a mistake (2) or a stop (75) of any process, 1 after a crash that
        starting again did not cure.

    Raises:
        MachineError: the machines do not find each other, or lose each other.
        UserError: the command is not installed.
    """
    command = shutil.which("drsformer", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])))
    if command is None:
        raise UserError("the command drsformer is not on the PATH: activate the environment that it is installed in")
    if "LOGLEVEL" not in os.environ:  # of torch's agent, whose warnings tell of every step
        logging.disable(logging.ERROR)
    if torch.cuda.device_count() == 0:  # on GPUs the threads of the processor have next to nothing to do
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, processor.usable_cores() // job.processes)))
    else:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    agent, alone = None, job.machines == 1
    parameters = RendezvousParameters(
        backend="c10d",
        endpoint=job.meeting or "localhost:0",  # a free port: several jobs on one machine do not meet
        run_id=str(uuid.uuid4()) if alone else job.name,
        min_nodes=job.machines,
        max_nodes=job.machines,
        local_addr="localhost" if alone else None,
    )
    with _handled_signals(), tempfile.TemporaryDirectory(prefix="drsformer") as folder:
        try:
            if job.checks and (code := _check([command, *_arguments(args), "--check"], job)):
                return code
            os.environ[GIVEN_UP] = str(Path(folder, "given_up"))
            rendezvous = registry.get_rendezvous_handler(parameters)
            spec = WorkerSpec(
                role="training",
                local_world_size=job.processes,
                entrypoint=command,
                args=(*_arguments(args), "--launcher", "pytorch"),
                rdzv_handler=rendezvous,
                max_restarts=job.restarts if args.auto_resume else 0,
                local_addr=parameters.local_addr,
            )
            agent = Agent(spec, job)
            try:
                agent.run()
            finally:
                if not agent.told:
                    rendezvous.shutdown()
        except SignalException:
            print("Stopped; the same command goes on.", file=sys.stderr)
            return EXIT_STOPPED
        except (RendezvousError, torch.distributed.DistError) as error:
            if agent is not None and agent.code_elsewhere():
                return agent.code
            raise MachineError(_lost(job, error)) from error
    return agent.code


def _arguments(args: argparse.Namespace) -> Iterator[str]:
    """Write the command line of a process."""
    yield from ("train", "-opt", args.opt)
    for name in ("auto_resume", "debug"):
        if getattr(args, name):
            yield f"--{name}"
    for module in args.imports:
        yield from ("--import", module)
    if args.force_yml:
        yield from ("--force_yml", *args.force_yml)


def _check(command: list[str], job: Job) -> int:
    """Check a training in a process that leaves no memory behind; returns its exit code."""
    with subprocess.Popen([*command, "--processes", str(job.processes)]) as checking:
        try:
            code = checking.wait()
        except SignalException:
            checking.terminate()
            raise
    return code if code >= 0 else EXIT_TROUBLE  # killed


def _lost(job: Job, error: Exception) -> str:
    if isinstance(error, RendezvousTimeoutError):
        return f"{socket.gethostname()} waited in vain for the other machines of NODES={job.machines} at {job.meeting}"
    reason = " ".join(str(error).split())[:LONGEST_REASON]
    return f"{socket.gethostname()} cannot reach the other machines at {job.meeting} ({reason})"


@contextlib.contextmanager
def _handled_signals() -> Iterator[None]:
    """Raise `SignalException` for a stop until there are processes to pass it on to."""
    before = {number: signal.getsignal(number) for number in STOPS}
    _raise_on_stop()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_on_stop() -> None:
    def stop(number: int, _frame: Any) -> None:
        raise SignalException("stopped", signal.Signals(number))

    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, stop)


class Agent(LocalElasticAgent):
    """Torchrun's agent of one machine, which ends for good where one of its processes or another machine did.

    Attributes:
        code: the exit code of the training.
        told: the other machines know that this one has ended, and meet no more.
    """

    def __init__(self, spec: WorkerSpec, job: Job) -> None:
        super().__init__(spec, DefaultLogsSpecs())
        self.code = 0
        self.told = False
        self._job = job
        self._stopped = False
        self._ignored = [number for number in STOPS if signal.getsignal(number) is signal.SIG_IGN]

    def _initialize_workers(self, worker_group: WorkerGroup) -> None:
        _raise_on_stop()  # nobody is there to pass it on to
        if self._stopped:
            raise SignalException("stopped", signal.SIGTERM)
        super()._initialize_workers(worker_group)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        peers.break_silent_connections(PATIENCE)
        started = super()._start_workers(worker_group)  # which sets handlers that kill what has not ended in 30 seconds
        for number in STOPS:
            signal.signal(number, signal.SIG_IGN if number in self._ignored else self._pass_on)
        return started

    def _pass_on(self, number: int, _frame: Any) -> None:
        """Ask the processes to stop; they save, and end when they have."""
        self._stopped = True
        for pid in self._pcontext.pids().values() if self._pcontext else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if result.state in {WorkerState.UNHEALTHY, WorkerState.FAILED}:
            self._judge(result.failures)
        elif result.state is WorkerState.SUCCEEDED:
            self.code = 0
        elif result.state is WorkerState.HEALTHY and self.code_elsewhere():
            result = RunResult(state=WorkerState.FAILED)  # what still runs is stopped
            self._remaining_restarts = 0
        return result

    def _judge(self, failures: Mapping[int, ProcessFailure]) -> None:
        """Find out whether to start again, and tell the other machines where not."""
        codes = {failure.exitcode for failure in failures.values()}
        final = next((code for code in _FINAL if code in codes), None)
        if final is None and self._stopped and all(-code in STOPS for code in codes):
            print("Stopped; the same command goes on from the last checkpoint.", file=sys.stderr)
            final = EXIT_STOPPED
        self.code = final or EXIT_TROUBLE
        if final is None:
            self._say_who_failed(failures)
        if final is not None or self._stopped or self.code_elsewhere():
            self._remaining_restarts = 0
        if self._remaining_restarts == 0:
            self._end_everywhere()

    def _say_who_failed(self, failures: Mapping[int, ProcessFailure]) -> None:
        who, how = "A process", "does not answer"
        if failures:
            rank, first = min(failures.items(), key=lambda item: item[1].timestamp)
            who = f"Process {rank} (local rank {first.local_rank}, pid {first.pid})"
            how = f"ended with exit code {first.exitcode}"
            if first.exitcode < 0:
                how = f"was killed by {first.signal_name()}"
        machine = f" on {socket.gethostname()}" if self._job.machines > 1 else ""
        left = 0 if self._stopped else self._remaining_restarts
        again = f"starting all again (tries left: {left})" if left else "the training ends"
        print(f"{who}{machine} {how}: {again}", file=sys.stderr, flush=True)

    def _end_everywhere(self) -> None:
        """Tell the other machines, and stay until they know, as their store may be here."""
        store = self._worker_group.store
        if self._job.machines == 1 or store is None or self.told:
            return
        self.told = True
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(RuntimeError):  # a machine that cannot be reached any more
            store.set(ENDED, str(self.code))
            self._worker_group.spec.rdzv_handler.shutdown()
            known = store.add(KNOWN, 1)
            while known < self._job.machines and time.monotonic() < deadline:
                time.sleep(0.1)
                known = store.add(KNOWN, 0)
            time.sleep(1)  # for the others to see that all know

    def code_elsewhere(self) -> bool:
        """Take over the exit code with which another machine ended, if one did."""
        store = self._worker_group.store
        if self._job.machines == 1 or store is None:
            return False
        with contextlib.suppress(RuntimeError):
            if store.check([ENDED]):
                self.code = int(store.get(ENDED))
                if self._pcontext is not None:
                    self._pcontext.close(signal.SIGTERM, GRACE)
                if self.code != EXIT_STOPPED:
                    print(f"Another machine ended the training (exit code {self.code}) and says why.", file=sys.stderr)
                self._end_everywhere()
                return True
        return False
