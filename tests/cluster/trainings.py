"""A training that several hosts run, as its files and its log show it."""

import json
import re
from pathlib import Path

from tests.cluster.hosts import wait_until
from tests.runs import write

BEGINS = 180  # seconds until the first iteration, on a busy machine with two processors


class Training:
    """An option file in a folder, and what is made of it there.

    Args:
        folder: where the commands run.
        options: of a training; they may be changed between two starts.
        name: of the experiment and the option file.
    """

    def __init__(self, folder: Path, options: dict, name: str) -> None:
        self.folder, self.options, self.name = folder, {**options, "name": name}, name
        self.file = self.write()
        self._states = folder / f"experiments/{name}/training_states"

    def write(self) -> str:
        return write(self.folder, self.options, f"{self.name}.yml")

    def end_after(self, iterations: int) -> None:
        """Let the next start end after so many iterations more than are saved."""
        self.options["train"]["total_iter"] = self.saved()[-1] + iterations
        self.write()

    def saved(self) -> list[int]:
        """List the iterations of the checkpoints."""
        return sorted(json.loads(file.read_text())["iter"] for file in self._states.glob("*.json"))

    def log(self) -> str:
        """Read all that the jobs of this experiment said, in the order of their numbers."""
        files = sorted(self.folder.glob("slurm-*.log"), key=lambda file: int(re.sub(r"\D", "", file.name)))
        return "".join(text for text in map(Path.read_text, files) if f"{self.name}.yml" in text or self.name in text)

    def iterations(self) -> list[int]:
        """List the iterations in the log, in the order in which they ran."""
        return [int(found) for found in re.findall(rf"\[{self.name[:5]}\.\..*iter:\s+([\d,]+), ", self.log())]

    def wait_for_iteration(self, iteration: int, limit: float = BEGINS) -> float:
        """Wait until an iteration is in the log, and return the seconds that it took."""
        return wait_until(lambda: iteration in self.iterations(), limit, lambda: self.log()[-3000:])

    def wait_for_resume(self, limit: float = BEGINS) -> float:
        """Wait until a later start has done its first iteration."""
        begun = len(self.iterations())
        return wait_until(lambda: len(self.iterations()) > begun, limit, lambda: self.log()[-3000:])

    def assert_whole(self) -> None:
        """Assert that all iterations ran, those after the checkpoint of a resume again, and that weights are there."""
        done = sorted(set(self.iterations()))
        assert done == list(range(1, self.options["train"]["total_iter"] + 1))
        assert (self.folder / f"experiments/{self.name}/models/net_g_latest.pth").exists()
