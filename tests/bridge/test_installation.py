"""`drsformer setup-training` with the real pip and BasicSR's real source distribution, in an environment of its own."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drsformer_arch.bridge import installation
from drsformer_arch.system.errors import UserError
from drsformer_arch.system.files import lock
from tests.installed import link_packages


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the source distribution, as pip fetches or has cached it."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "sitecustomize.py").write_text(installation.SITECUSTOMIZE)  # pip asks setup.py what it needs
    fetch = "download --quiet --no-deps --no-build-isolation --no-binary basicsr --dest"
    command = [sys.executable, "-m", "pip", *fetch.split(), str(folder), f"basicsr=={installation.BASICSR}"]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"BasicSR's source distribution is not to be had (no network?): {done.stderr[-200:]}")
    return folder


class Environment:
    """An environment that has everything but BasicSR and pip, as those have that uv makes."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder, self.offline = folder, ("--", "--no-index", "--find-links", str(source))
        packages = link_packages(folder / "packages", without={"basicsr", "pip"})
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        self.python = folder / "venv/bin/python"
        self.installed = next((folder / "venv/lib").glob("python*/site-packages"))
        (self.installed / "packages.pth").write_text(f"{packages}\n")
        self.scratch = folder / "tmp"
        self.scratch.mkdir()
        # Nothing that pip is told elsewhere may reach out; what would install elsewhere, or not build, is not obeyed.
        unwelcome = {"PIP_TARGET": str(folder / "elsewhere"), "PIP_ONLY_BINARY": ":all:"}
        self.variables = os.environ | {"TMPDIR": str(self.scratch), "PIP_CONFIG_FILE": os.devnull} | unwelcome

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self.python, "-m", "drsformer_arch", *arguments],
            cwd=self.folder,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        said, _ = process.communicate()
        return process.returncode, said


# Half a minute: pip runs several times, and the plugin is imported at the end.
def test_basicsr_is_built_from_its_source_and_what_fails_or_is_interrupted_half_way_is_mended(tmp_path, source):
    environment = Environment(tmp_path, source)

    nothing = tmp_path / "nothing"
    nothing.mkdir()
    code, said = environment.run("setup-training", "--", "--no-index", "--find-links", str(nothing))
    assert code == 1
    line = said.splitlines()[-1]
    assert line.startswith("error: building BasicSR failed: ERROR: No matching distribution found for basicsr==1.4.2;")
    log = Path(re.search(r"all that pip says: (.*)", line)[1])
    assert "--no-index" in log.read_text()
    log.unlink()
    assert list(environment.scratch.iterdir()) == []

    process = environment.start("setup-training", *environment.offline)
    assert process.stdout.readline().startswith("Building BasicSR 1.4.2")
    process.send_signal(signal.SIGTERM)
    assert "Interrupted." in process.communicate()[0]
    assert process.returncode == 130
    assert list(environment.scratch.iterdir()) == []
    assert not list(environment.installed.glob("basicsr*"))

    for name, content in {  # as where pip was killed while it copied
        "basicsr/__init__.py": "from .version import __version__\n",
        "basicsr-1.4.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: basicsr\nVersion: 1.4.2\n",
    }.items():
        (environment.installed / name).parent.mkdir()
        (environment.installed / name).write_text(content)
    code, said = environment.run("setup-training", *environment.offline)
    assert code == 0, said
    assert said.endswith("BasicSR 1.4.2 is installed: drsformer train and drsformer test work\n")
    assert (environment.installed / "basicsr/version.py").is_file()
    assert list(environment.scratch.iterdir()) == []


def test_a_sitecustomize_of_the_user_runs_beside_that_of_the_build(tmp_path):
    for name, text in {"build": installation.SITECUSTOMIZE, "user": "print('of the user')\n"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", "def f():\n exec('x = 1')\n return 'x' in locals()\nprint(f())"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path / 'build'}{os.pathsep}{tmp_path / 'user'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "of the user\nTrue\n", done.stderr


def test_a_copy_of_basicsr_in_the_working_directory_is_not_looked_at(tmp_path, monkeypatch):
    (tmp_path / "basicsr").mkdir()
    (tmp_path / "basicsr/__init__.py").write_text("raise RuntimeError('a copy')\n")
    monkeypatch.chdir(tmp_path)
    assert installation.working_version() == installation.BASICSR


def test_of_two_that_set_up_one_environment_the_second_waits_and_finds_nothing_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    held, said = lock(tmp_path), []

    def say(line: str) -> None:
        said.append(line)
        os.close(held)  # the first is done

    installation.install([], say)
    assert said == [f"Waiting for another setup-training in {tmp_path}"]


def test_an_environment_without_pip_and_ensurepip_is_told_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"has no pip.*uv pip install pip"):
        installation._with_pip(tmp_path, tmp_path / "log")


def test_the_reason_is_picked_from_what_pip_says(tmp_path):
    log = tmp_path / "pip.log"
    retry = (
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)': /simple/basicsr/\n"
    )
    log.write_text(f"{retry}ERROR: No matching distribution found for basicsr==1.4.2\nnote: something\n")
    assert installation._reason(log) == (
        "the package index cannot be reached (no network?): ERROR: No matching distribution found for basicsr==1.4.2"
    )
    log.write_text("  KeyError: '__version__'\n  [end of output]\nERROR: Failed to build 'basicsr'\nhint: see above\n")
    assert installation._reason(log) == "KeyError: '__version__'"
