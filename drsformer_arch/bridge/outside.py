"""Code from outside this package: modules that `import:` and `--import` name, and networks of installed packages.

What is imported is executed. It registers its networks, data sets, losses, ... with BasicSR, as BasicSR's own do.
"""

import contextlib
import importlib
import importlib.util
import os
import shutil
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from drsformer_arch.bridge import importable  # noqa: F401 - makes BasicSR importable
from drsformer_arch.fast.builders import NetworkBuilder
from drsformer_arch.restore.outside import installed_networks
from drsformer_arch.system.errors import UserError, line_of
from drsformer_arch.system.files import expanded

# isort: split
from basicsr.utils.registry import ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY

PYTHON = ".py"
REGISTRIES = (ARCH_REGISTRY, DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY)


def names_of(options: Mapping[str, Any]) -> list[str]:
    """List what options name under `import`, a text or several, as it is written."""
    names = options.get("import") or []
    return [names] if isinstance(names, str) else list(names)


def imports_of(options: Mapping[str, Any], option_file: Path | str) -> list[str]:
    """List the modules and files that options name under `import`; files with their paths.

    A relative path is meant from the working directory. A file that is not there is looked for beside the option file:
    an experiment's folder has copies of both.

    Raises:
        UserError: there is no such file.
    """
    return [_find(name, Path(option_file)) for name in names_of(options)]


def _find(name: str, option_file: Path) -> str:
    if not name.endswith(PYTHON):
        return name
    path = Path.cwd() / expanded(name)
    for candidate in (path, option_file.absolute().parent / path.name):
        if os.path.isfile(candidate):  # pathlib's fails where a name is too long
            return str(candidate)
    raise UserError(f"import {name}: there is no such file in {Path.cwd()}")


def copy_imported_files(options: Mapping[str, Any], folder: Path) -> None:
    """Copy the files that options name under `import`, not what they import in turn; modules are left where they are.

    Raises:
        OSError: the folder is not writable, the disk is full.
    """
    for name in names_of(options):
        if name.endswith(PYTHON) and os.path.isfile(path := expanded(name)):
            with contextlib.suppress(shutil.SameFileError):
                shutil.copyfile(path, folder / path.name)


def register_outside(names: Sequence[str]) -> None:
    """Register what installed packages announce, then import modules and files, which register what they have.

    Args:
        names: importable modules, and files, which end with .py. What is imported already is not imported again.

    Raises:
        UserError: no such file or module, one that fails while it is executed (names the line), or registers nothing.
    """
    registered: dict[str, Any] = dict(iter(ARCH_REGISTRY))
    for network in installed_networks().values():
        holder = registered.get(network.__name__)
        if holder is None:
            ARCH_REGISTRY.register(NetworkBuilder(network))
        elif getattr(holder, "kind", holder) is not network:
            print(
                f"warning: {network.__name__} of {network.__module__} is left out: the name is {holder.__module__}'s",
                file=sys.stderr,
                flush=True,
            )
    for name in names:
        before = _count_registered()
        is_new = _import_file(Path(name)) if name.endswith(PYTHON) else _import_module(name)
        if is_new and _count_registered() == before:
            raise UserError(
                f"import {name}: it registers nothing; a network's class needs @ARCH_REGISTRY.register() of "
                "basicsr.utils.registry"
            )


def _count_registered() -> int:
    return sum(len(list(registry)) for registry in REGISTRIES)


def _import_file(path: Path) -> bool:
    """Execute a file as the module of its name, from its folder, as Python does; False where that was done before.

    Processes that are started by spawning import it by that name and that folder, which is in `sys.path`.
    """
    if not os.path.isfile(path):
        raise UserError(f"import {path}: there is no such file")
    path = path.resolve()
    for module in list(sys.modules.values()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if file and Path(file).name == path.name and Path(file).exists() and path.samefile(file):
            return False
    name = path.stem
    if name in sys.modules or name in sys.stdlib_module_names:
        raise UserError(f"import {path}: another module is called {name}; rename the file")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever somebody's code raises
        del sys.modules[name]
        raise UserError(f"import {_where(error, path)}") from error
    return True


def _import_module(name: str) -> bool:
    """Import a module by its name; False where that was done before."""
    if name in sys.modules:
        return False
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:  # as above
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            hint = f"; the file is {name}{PYTHON}" if Path(f"{name}{PYTHON}").is_file() else ""
            raise UserError(f"import {name}: there is no module {error.name}{hint}") from error
        raise UserError(f"import {_where(error, name)}") from error
    return True


def _where(error: BaseException, imported: object) -> str:
    """Say in which line of the imported file, or of one beside it, an import failed, and why."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    reason = line_of(error, "") if isinstance(error, Exception) else f"it ends the program: {error!r}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in {__file__, importlib.__file__} and not frame.filename.startswith("<")
    ]
    beside = [frame for frame in frames if Path(frame.filename).parent == Path(frames[0].filename).parent]
    return f"{beside[-1].filename}, line {beside[-1].lineno}: {reason}" if beside else f"{imported}: {reason}"
