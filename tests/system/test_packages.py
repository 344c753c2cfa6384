"""What works with a part of the packages only, and the one line that is said of those that are missing."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from drsformer_arch.system import packages
from tests.installed import link_packages, needed


def python(folder: Path, *arguments: str, at: Path) -> "subprocess.CompletedProcess[str]":
    """Run Python without any packages but those of the folder."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); "
    command = [sys.executable, "-I", "-S", "-c", code + arguments[0], *arguments[1:]]
    return subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)


def test_networks_need_torch_and_einops_and_restorer_numpy_and_safetensors_besides(tmp_path):
    few = link_packages(tmp_path / "few", only=needed("torch", "einops"))
    done = python(few, "from drsformer_arch import DRSformer; print(DRSformer(dim=8).__class__.__name__)", at=tmp_path)
    assert (done.returncode, done.stdout) == (0, "DRSformer\n"), done.stderr
    more = link_packages(tmp_path / "more", only=needed("torch", "einops", "numpy", "safetensors"))
    script = (
        "import numpy as np; from drsformer_arch import Restorer; "
        "print(Restorer()(np.zeros((20, 30, 3), np.uint16)).shape)"
    )
    done = python(more, script, at=tmp_path)
    assert (done.returncode, done.stdout) == (0, "(20, 30, 3)\n"), done.stderr
    command = "from drsformer_arch.cli import main; sys.exit(main(sys.argv[1:]))"
    done = python(more, command, "export", "none.pth", "-o", "none.onnx", at=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: there is no file none.pth\n")
    done = python(more, command, "derain", ".", "-o", "out", at=tmp_path)
    said = "error: drsformer needs the package tqdm: pip install tqdm\n"
    assert (done.returncode, done.stderr) == (2, said)


# Ten seconds and more: every command starts and loads torch.
def test_all_but_training_works_without_basicsr_and_the_rest_names_the_command_that_installs_it(tmp_path):
    of_training = {"basicsr", "torchvision", "addict", "future", "requests", "tb-nightly", "yapf", "scikit-image"}
    folder = link_packages(tmp_path / "packages", without=of_training)
    for kind in ("input", "target"):
        (tmp_path / kind).mkdir()
        picture = np.random.default_rng(0).integers(0, 256, (100, 200, 3), np.uint8)  # two blocks of NIQE
        cv2.imwrite(str(tmp_path / kind / "a.png"), picture)

    def run(*arguments: object) -> tuple[int, str]:
        run_command = "from drsformer_arch.cli import main; sys.exit(main(sys.argv[1:]))"
        done = python(folder, run_command, *map(str, arguments), at=tmp_path)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    assert run("derain", "input", "-o", "derained")[0] == 0
    assert run("evaluate", "derained", "target", "--workers", 1)[0] == 0
    assert run("compare", "DRSformer-S", "--data", "A=.", "--protocol", "rain200", "-o", "compared")[0] == 0
    (tmp_path / "test.yml").write_text("name: x\n")
    for arguments in (
        ("train", "-opt", "test.yml"),
        ("compare", "test.yml", "-o", "other"),
        ("evaluate", "derained"),
        ("derain", "input", "-o", "other", "--import", "own.py"),
    ):
        code, said = run(*arguments)
        assert (code, said.count("\n")) == (2, 1), said
        assert "BasicSR 1.4.2" in said
        assert "drsformer setup-training" in said


def test_a_library_that_fails_beside_basicsr_is_one_line(tmp_path):
    folder = link_packages(tmp_path / "packages", without={"torchvision"})
    (folder / "torchvision").mkdir()
    (folder / "torchvision/__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    (tmp_path / "test.yml").write_text("name: x\n")
    command = "from drsformer_arch.cli import main; sys.exit(main(sys.argv[1:]))"
    done = python(folder, command, "test", "-opt", "test.yml", at=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "error: BasicSR does not import: RuntimeError: operator torchvision::nms does not exist; drsformer doctor "
        "shows what is installed\n",
    )


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("cv2", "drsformer needs the package opencv-python: pip install opencv-python"),
        ("tifffile", "drsformer needs the package tifffile: pip install tifffile"),
        ("onnxruntime", "ONNX needs the package onnxruntime: pip install 'drsformer-basicsr[onnx]'"),
        ("torchvision", "BasicSR needs the package torchvision, which is not installed; this installs it: drsformer"),
    ],
)
def test_a_missing_package_is_one_line_that_says_what_installs_it(module, said):
    line = packages.missing(ModuleNotFoundError(f"No module named '{module}.part'", name=f"{module}.part"))
    assert line is not None
    assert line.startswith(said)


def test_a_missing_library_of_the_system_is_named_and_other_import_errors_are_not_explained():
    error = ImportError("libGL.so.1: cannot open shared object file: No such file or directory")
    assert "libGL.so.1 is missing; on Debian and Ubuntu: apt-get install libgl1" in (packages.missing(error) or "")
    assert packages.missing(ImportError("cannot import name 'x'")) is None
    assert packages.missing(ModuleNotFoundError("No module named 'own'", name="own")) is None


def test_a_picture_whose_decoder_is_missing_is_not_called_damaged(tmp_path):
    folder = link_packages(tmp_path / "packages", without={"tifffile"})
    cv2.imwrite(str(tmp_path / "a.tif"), np.zeros((8, 8, 3), np.uint8))
    script = "from drsformer_arch.images.pictures import decode; decode(open('a.tif', 'rb').read(), 'a.tif')"
    said = python(folder, script, at=tmp_path).stderr.splitlines()[-1]
    assert said.endswith("picture a.tif cannot be read: drsformer needs the package tifffile: pip install tifffile")
