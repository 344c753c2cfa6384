"""Rehearsals on several hosts, with --cluster: they need root, Linux's namespaces and Debian's packages of Slurm."""

import copy
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import TOOLS, Hosts, missing
from tests.cluster.slurm import TOOLS as SLURM
from tests.cluster.slurm import Cluster
from tests.cluster.trainings import Training
from tests.conftest import RESUMES


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("cluster"):
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="several hosts are rehearsed with --cluster"))


def _skip_without(tools: dict[str, str]) -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("hosts on one machine need Linux and root")
    lacking = missing(tools)
    if lacking:
        pytest.skip(f"hosts on one machine need {lacking}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Make a Slurm with two nodes, which ends after the module's tests, with all that runs on it."""
    _skip_without(SLURM)
    made = Cluster(tmp_path_factory.mktemp("slurm"))
    yield made
    made.end()


@pytest.fixture
def queue(cluster: Cluster) -> Iterator[Cluster]:
    """Lend the cluster with its nodes up and nothing in its queue."""
    cluster.empty()
    yield cluster
    cluster.empty()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """Make two hosts, `left` and `right`, on a switch."""
    _skip_without(TOOLS)
    made = Hosts(("left", "right"), tmp_path)
    yield made
    made.end()


@pytest.fixture
def training(options: dict, tmp_path: Path) -> Callable[..., Training]:
    """Make option files of a small network in a folder to submit from; their iterations outlast a test."""
    options["train"] |= {"effective_batch_size": 2, "total_iter": 100000}
    options["train"]["scheduler"]["periods"] = [4, 100000]
    options["datasets"]["train"] |= {"num_worker_per_gpu": 0, "batch_size_per_gpu": 1}
    options["logger"]["save_checkpoint_freq"] = options["val"]["val_freq"] = 100000
    (tmp_path / "scripts").symlink_to(Path(__file__).parents[2] / "scripts")
    return lambda name="small": Training(tmp_path, copy.deepcopy(options), name)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Iterator[Callable[[str, float], None]]:
    """Note seconds for the summary, with how busy the machine was."""
    notes: list[str] = []
    yield lambda what, seconds: notes.append(f"{what} {seconds:.0f} s")
    request.config.stash[RESUMES][request.node.name] = f"{', '.join(notes)} (load {os.getloadavg()[0]:.0f})"
