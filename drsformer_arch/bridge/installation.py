"""Install BasicSR into the running environment, built from its own source distribution as it was published.

BasicSR 1.4.2 is pure Python; it is its setup.py that fails from Python 3.13 on. It runs the file that holds its
version by `exec` and takes the result from `locals()`, where PEP 667 no longer puts it. For the time of the build,
`exec` writes there again. The declared build needs (torch, for extensions that nobody asks for) are left out.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from drsformer_arch.bridge.trouble import MachineError
from drsformer_arch.system.errors import LONGEST_REASON, UserError, printable
from drsformer_arch.system.files import lock
from drsformer_arch.system.packages import BASICSR

SETUPTOOLS = "setuptools>=77"  # has bdist_wheel; BasicSR also imports distutils, since Python 3.12 a part of it
_ENOUGH = (70, 1)  # of setuptools, to build with
_SHOWN = ("Collecting ", "Downloading ", "Building wheel", "Installing collected")  # of pip's lines
_OFFLINE = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "ProxyError", "Network is unreachable")
_SAYS_NOTHING = (
    "ERROR: Failed to build",
    "ERROR: ResolutionImpossible",
    "error: subprocess-exited",
    "error: metadata-generation-failed",
)
# What a user may have set for pip and what would lead the installation elsewhere, or forbid to build.
_NOT_OBEYED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN", "PIP_ONLY_BINARY")
_PATIENCE = 10  # seconds that a pip that is told to stop may take

SITECUSTOMIZE = '''"""Let exec() write into the variables of the function that calls it, as before PEP 667."""
import builtins
import importlib.machinery
import importlib.util
import os
import sys

plain_exec = builtins.exec


def exec_in_caller(source, globals=None, locals=None, /, **options):
    if globals is None and locals is None:
        caller = sys._getframe(1)
        globals, locals = caller.f_globals, caller.f_locals
    return plain_exec(source, globals, locals, **options)


if sys.version_info >= (3, 13):
    builtins.exec = exec_in_caller

# Python runs the first sitecustomize of its path alone: the one that this hides runs, too.
here = os.path.dirname(os.path.abspath(__file__))
hidden = importlib.machinery.PathFinder.find_spec(
    "sitecustomize", [folder for folder in sys.path if os.path.abspath(folder) != here]
)
if hidden is not None and hidden.loader is not None:
    hidden.loader.exec_module(importlib.util.module_from_spec(hidden))
'''


class Pip(NamedTuple):
    """Runs pip: its output goes to a log file, of which the interesting lines are shown."""

    variables: dict[str, str]  # of its environment, beside those of this process
    log: Path
    say: Callable[[str], None]

    def run(self, task: str, *arguments: str, variables: dict[str, str] | None = None) -> None:
        """Run `pip ARGUMENTS`.

        Args:
            task: what it is for, in messages.
            arguments: of pip.
            variables: further ones of its environment; PYTHONPATH is put before the one that is there.

        Raises:
            MachineError: pip fails; names the last line of it that says why, and the log file.
        """
        obeyed = {name: value for name, value in os.environ.items() if name not in _NOT_OBEYED}
        environment = obeyed | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | self.variables
        if "--target" in arguments:
            environment["PIP_USER"] = "0"  # pip refuses both at once
        for name, value in (variables or {}).items():
            environment[name] = os.pathsep.join(filter(None, (value, environment.get(name))))
        command = [sys.executable, "-m", "pip", *arguments]
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            pip = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True, errors="replace"
            )
            assert pip.stdout is not None
            try:
                for line in pip.stdout:
                    log.write(line)
                    if line.lstrip().startswith(_SHOWN):
                        self.say(f"  {line.strip().partition(' (from ')[0]}")
                code = pip.wait()
            except BaseException:  # Ctrl-C, SIGTERM: what pip has half done, it takes back
                _stop(pip)
                raise
        if code:
            raise MachineError(f"{task} failed: {_reason(self.log)}; all that pip says: {self.log}")


def working_version() -> str | None:
    """Tell which BasicSR is installed, if it works together with the plugin; None where none does."""
    version = installed_version()
    return version if version == BASICSR and _problem() is None else None


def installed_version() -> str | None:
    """Tell which BasicSR is installed, whether it works or not."""
    return _version("basicsr")


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def install(pip_options: Sequence[str] = (), say: Callable[[str], None] = print) -> None:
    """Build BasicSR and install it with what it needs. What is half done when this ends early, doing it again mends.

    Args:
        pip_options: such as `--constraint FILE`; they go to `pip wheel` and to `pip install`.
        say: takes lines that tell how far it is.

    Raises:
        UserError: the environment has no pip, and none can be had.
        MachineError: pip fails, as it does without network; or BasicSR does not work although it is installed.
    """
    with _alone(say) as waited, _log_of_failures() as log:
        if not (waited and working_version()):
            _install(log, pip_options, say)


def _install(log: Path, pip_options: Sequence[str], say: Callable[[str], None]) -> None:
    before = installed_version()
    with tempfile.TemporaryDirectory(prefix="drsformer-setup-training-") as folder:
        work = Path(folder)
        pip = Pip(_with_pip(work, log), log, say)
        say(f"Building BasicSR {BASICSR} for Python {sys.version_info[0]}.{sys.version_info[1]}")
        wheel = _build(pip, work, pip_options)
        say(f"Installing it into {sys.prefix}" + (f", in place of {before}" if before not in (None, BASICSR) else ""))
        if before == BASICSR:  # and does not work: pip would leave it as it is
            pip.run("installing BasicSR", "install", "--ignore-installed", "--no-deps", str(wheel), *pip_options)
        pip.run("installing BasicSR", "install", str(wheel), SETUPTOOLS, *_keeping_torch(work), *pip_options)
    problem = _problem()
    if problem is not None:
        raise MachineError(f"BasicSR {BASICSR} is installed but does not work: {problem}; all that pip says: {log}")


@contextlib.contextmanager
def _alone(say: Callable[[str], None]) -> Iterator[bool]:
    """Wait until no other process sets up this environment: two pips break each other. Yields whether one did."""
    waited, held = False, None
    with contextlib.suppress(OSError):  # a disk that knows no locks
        try:
            held = lock(Path(sys.prefix), wait=False)
        except BlockingIOError:
            waited = True
            say(f"Waiting for another setup-training in {sys.prefix}")
            held = lock(Path(sys.prefix))
    try:
        yield waited
    finally:
        if held is not None:
            os.close(held)


@contextlib.contextmanager
def _log_of_failures() -> Iterator[Path]:
    """Yield a file for what pip says, which stays only where a message names it."""
    descriptor, name = tempfile.mkstemp(prefix="drsformer-setup-training-", suffix=".log")
    os.close(descriptor)
    log = Path(name)
    try:
        yield log
    except MachineError:
        raise
    except BaseException:
        log.unlink()
        raise
    log.unlink()


def _build(pip: Pip, work: Path, options: Sequence[str]) -> Path:
    """Build the wheel in the folder."""
    site, tools = work / "site", work / "tools"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITECUSTOMIZE)
    if not _has_setuptools():
        pip.run("fetching setuptools", "install", "--target", str(tools), SETUPTOOLS, *options)
    paths = os.pathsep.join(map(str, (site, tools)))
    source = f"basicsr=={BASICSR}"
    build = ("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", str(work), source, *options)
    pip.run("building BasicSR", *build, variables={"PYTHONPATH": paths})
    return next(work.glob("basicsr-*.whl"))


def _keeping_torch(work: Path) -> tuple[str, str]:
    """Return the options that keep pip from exchanging the torch that is there, for example a build for CPUs."""
    file = work / "keep.txt"
    versions = {name: _version(name) for name in ("torch", "torchvision")}
    file.write_text("".join(f"{name}=={version}\n" for name, version in versions.items() if version))
    return "--constraint", str(file)


def _has_setuptools() -> bool:
    with contextlib.suppress(ValueError):
        major, minor = (_version("setuptools") or "").split(".")[:2]
        return (int(major), int(minor)) >= _ENOUGH
    return False


def _with_pip(work: Path, log: Path) -> dict[str, str]:
    """Return the variables with which `python -m pip` runs; environments that uv makes have no pip of their own."""
    if find_spec("pip") is not None:
        return {}
    wheels: list[Path] = []
    if find_spec("ensurepip") is not None:
        import ensurepip  # noqa: PLC0415 - Debian has it in a package of its own

        wheels = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
    if not wheels:
        raise UserError(
            "this environment has no pip, and Python's ensurepip, which would give one, is missing, too; put pip into "
            "it (uv pip install pip, or apt-get install python3-pip), then run this again"
        )
    pip = Pip({"PYTHONPATH": str(wheels[-1])}, log, lambda _: None)
    pip.run("setting up pip", "install", "--no-index", "--no-deps", "--target", str(work / "pip"), str(wheels[-1]))
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(work / "pip"), os.environ.get("PYTHONPATH"))))}


def _problem() -> str | None:
    """Say why the plugin does not import, in a process of its own; None where it does."""
    script = (  # on this path: `python -c` would begin with the working directory, where a copy of BasicSR may lie
        f"import sys\nsys.path[:] = {sys.path!r}\nfrom drsformer_arch.system.errors import line_of\n"
        "try:\n import drsformer_arch.plugin\nexcept Exception as error:\n"
        " sys.exit(line_of(error, 'the plugin does not import'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, errors="replace", check=False)
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1] if done.returncode else None


def _reason(log: Path) -> str:
    """Pick the last line that says why pip failed."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    errors = [line for line in lines if line.lower().startswith("error:") and not line.startswith(_SAYS_NOTHING)]
    # A setup.py that fails ends in a traceback, whose last line says why.
    errors = errors or [line for line in lines if "Error: " in line] or lines[-1:]
    offline = (
        "the package index cannot be reached (no network?): "
        if any(word in line for word in _OFFLINE for line in lines)
        else ""
    )
    return printable(f"{offline}{errors[-1] if errors else 'it says nothing'}"[:LONGEST_REASON])


def _stop(pip: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        pip.wait(_PATIENCE / 5)  # Ctrl-C has reached it, too, and a second one would end its tidying
    if pip.poll() is None:
        pip.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            pip.wait(_PATIENCE)
    if pip.poll() is None:
        pip.kill()
        pip.wait()
