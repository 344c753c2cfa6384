"""Networks from outside, those of examples/own_network: by `import:`, by `--import` and by an entry point."""

import multiprocessing
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from drsformer_arch import Restorer
from drsformer_arch.bridge.outside import imports_of, register_outside
from drsformer_arch.cli import main
from drsformer_arch.restore import outside
from drsformer_arch.system.errors import UserError
from tests.bridge.test_plugin import USERS_SCRIPT, run
from tests.runs import drsformer, losses, write

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_network"


@pytest.fixture
def two_iterations(options: dict) -> dict:
    """Options of a short training with a process that reads pictures."""
    options["train"]["total_iter"] = options["val"]["val_freq"] = 2
    options["logger"]["save_checkpoint_freq"] = 1
    options["datasets"]["train"]["num_worker_per_gpu"] = 1
    return options


def options_of_a_test(options: dict, weights: str, **others: object) -> dict:
    test = {key: options[key] for key in ("model_type", "num_gpu", "network_g", "val")}
    test["datasets"] = {"test": {**options["datasets"]["val"], "name": "pairs"}}
    return {**test, "name": "tested", "path": {"pretrain_network_g": weights}, **others}


def test_a_file_that_an_option_file_imports(two_iterations, pairs, tmp_path):
    (tmp_path / "code").mkdir()
    shutil.copy(EXAMPLE / "my_arch.py", tmp_path / "code")
    two_iterations |= {"import": "code/my_arch.py", "network_g": {"type": "TwoConvolutions", "channels": 4}}
    drsformer(tmp_path, "train", "-opt", write(tmp_path, two_iterations))
    folder = tmp_path / "experiments" / "small"
    weights = folder / "models" / "net_g_latest.pth"
    whole = torch.load(weights)
    assert whole["network"] == two_iterations["network_g"]

    for path in (weights, *folder.glob("*/*2.*"), *folder.glob("*/*2_*")):
        path.unlink()
    shutil.rmtree(tmp_path / "code")  # the experiment has a copy
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    said = drsformer(elsewhere, "train", "-opt", str(folder / "small.yml"), "--auto_resume")
    assert list(losses(said)) == [2]
    for key, value in torch.load(weights)["params"].items():
        assert torch.equal(value, whole["params"][key])

    test = options_of_a_test(two_iterations, str(weights), **{"import": ["my_arch.py"]})
    said = drsformer(folder, "test", "-opt", write(folder, test, "test.yml"))
    assert re.search(r"# psnr \[rain200 protocol\]: \d\d\.\d+", said)
    said = drsformer(folder, "compare", "test.yml", "--limit", "1")  # in a process of its own
    assert "\n| TwoConvolutions | " in said
    del test["import"]
    write(folder, test, "test.yml")
    said = drsformer(tmp_path, "test", "-opt", "experiments/small/test.yml", expect=2)
    assert "nothing is registered as 'TwoConvolutions'" in said
    imported = ("--import", "experiments/small/my_arch.py")
    drsformer(tmp_path, "test", "-opt", "experiments/small/test.yml", *imported)

    rainy = str(pairs / "input" / "00.png")
    refused = drsformer(tmp_path, "derain", rainy, "-o", "clean.png", "-w", str(weights), expect=2)
    assert (
        "its network 'TwoConvolutions' is not ours, nor one from outside that was imported (--import FILE)" in refused
    )
    said = drsformer(tmp_path, "derain", rainy, "-o", "clean.png", "-w", str(weights), *imported)
    assert "TwoConvolutions (0.00 M parameters)" in said
    assert cv2.imread(str(tmp_path / "clean.png")).shape == (61, 75, 3)


def test_a_package_that_announces_its_network(two_iterations, pairs, tmp_path, monkeypatch, capsys):
    source, target = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(EXAMPLE, source)
    install = ["pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(target)]
    subprocess.run([sys.executable, "-m", *install, str(source)], check=True, capture_output=True, timeout=300)
    monkeypatch.syspath_prepend(target)  # also of the processes that are started
    two_iterations["network_g"] = {"type": "DilatedNet", "channels": 4}
    drsformer(tmp_path, "train", "-opt", write(tmp_path, two_iterations))
    weights = tmp_path / "experiments" / "small" / "models" / "net_g_latest.pth"
    test = options_of_a_test(two_iterations, str(weights))
    drsformer(tmp_path, "test", "-opt", write(tmp_path, test, "test.yml"))

    bare = tmp_path / "bare.pth"  # says nothing of its network: it is recognised
    torch.save(torch.load(weights)["params"], bare)
    for name, file in (("named", weights), ("recognised", bare)):
        said = drsformer(tmp_path, "derain", str(pairs / "input"), "-o", name, "-w", str(file))
        assert "10 of 10 files derained with DilatedNet" in said
    derained = [cv2.imread(str(tmp_path / name / "00.png")) for name in ("named", "recognised")]
    assert np.array_equal(*derained)

    drsformer(tmp_path, "export", str(weights), "-o", "net.safetensors")
    drsformer(tmp_path, "export", str(weights), "-o", "net.onnx")
    drsformer(tmp_path, "derain", str(pairs / "input" / "00.png"), "-o", "onnx.png", "-w", "net.onnx")
    assert np.abs(cv2.imread(str(tmp_path / "onnx.png")).astype(int) - derained[0]).max() <= 1
    said = drsformer(tmp_path, "compare", "test.yml", "net.safetensors", "DRSformer-S", "--limit", "2",
                     "--data", f"pairs={pairs}", "--protocol", "rain200")  # fmt: skip
    assert all(f"\n| {name} | " in said for name in ("DilatedNet", "net", "DRSformer-S"))

    outside.installed_networks.cache_clear()
    try:
        assert main(["doctor"]) == 0
        assert "DilatedNet of own_network.dilated_net" in capsys.readouterr().out
        (target / "own_network" / "dilated_net.py").write_text("import nonsense")
        for name in [name for name in sys.modules if name.startswith("own_network")]:
            del sys.modules[name]
        outside.installed_networks.cache_clear()
        assert outside.installed_networks() == {}
        warning = "warning: network DilatedNet (own_network.dilated_net:DilatedNet): ModuleNotFoundError: No module"
        assert capsys.readouterr().err.startswith(warning)
    finally:
        outside.installed_networks.cache_clear()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "there is no such file"),
        ("x = 1\nclass Net(:\n", r"bad_arch.py, line 2: invalid syntax"),
        ("x = 1\n\nimport torch\ntorch.zeros(2).view(3)\n", r"bad_arch.py, line 4: RuntimeError: shape"),
        ("import sys\nsys.exit(3)\n", r"bad_arch.py, line 2: it ends the program: SystemExit\(3\)"),
        ("import no_such_package\n", r"bad_arch.py, line 1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("from torch import nn\nclass Net(nn.Module): ...\n", r"it registers nothing; .*ARCH_REGISTRY.register\(\)"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(code, said, options, tmp_path, monkeypatch, capsys):  # noqa: PLR0917
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    if code is not None:
        Path("bad_arch.py").write_text(code)
    options["import"] = "bad_arch.py"
    cv2.imwrite("1.png", np.zeros((8, 8, 3), np.uint8))
    derain = ["derain", "1.png", "-o", "2.png", "--import", "bad_arch.py"]
    for arguments in (["train", "-opt", write(tmp_path, options)], derain):
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(f"^error: .*{said}", line), line
        sys.modules.pop("bad_arch", None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("~no_such_user/my_arch.py", "import .*no_such_user/my_arch.py: there is no such file"),
        ("x" * 300 + ".py", "import .*x.py: there is no such file"),
        ("..x", r"import \.\.x: TypeError: "),
    ],
)
def test_a_name_that_cannot_be_imported_is_one_line(name, said, options, tmp_path, monkeypatch, capsys):  # noqa: PLR0917
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "-opt", write(tmp_path, options)]
    for more in (["--force_yml", f"import={name}"], ["--import", name]):
        assert main([*arguments, *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert re.search(f"^error: small.yml: {said}", line), line


def test_one_announced_name_is_that_of_the_first_package_and_a_package_may_exit(tmp_path, monkeypatch, capsys):
    code = "from torch import nn\nclass Announced(nn.Module): ...\n"
    for name, source in (("announced_exit", "import sys\nsys.exit(3)\n"), ("announced", code), ("announced_too", code)):
        (tmp_path / f"{name}.py").write_text(source)
        (tmp_path / f"{name}-1.dist-info").mkdir()
        points = f"[{outside.GROUP}]\nAnnounced = {name}:Announced\n"
        (tmp_path / f"{name}-1.dist-info" / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    outside.installed_networks.cache_clear()
    try:
        assert set(outside.installed_networks()) == {"Announced"}
        left_out, later = sorted(capsys.readouterr().err.splitlines(), key=lambda line: "exit" not in line)
    finally:
        outside.installed_networks.cache_clear()
    assert "(announced_exit:Announced): RuntimeError: it ends the program: SystemExit(3)" in left_out
    assert re.search(r"ValueError: announced(_too)? announces Announced too", later)


def test_modules_are_imported_by_name_once_and_by_processes_that_are_spawned(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    for name in ("own_by_name", "own_by_file"):
        source = (EXAMPLE / "my_arch.py").read_text()
        Path(f"{name}.py").write_text(source.replace("TwoConvolutions", name))
    with pytest.raises(UserError, match=r"there is no module own_by_name; the file is own_by_name\.py"):
        register_outside(["own_by_name"])
    monkeypatch.syspath_prepend(tmp_path)
    register_outside(["own_by_name", "own_by_name", "own_by_name.py"])
    sys.path.remove(str(tmp_path))
    (name,) = imports_of({"import": "own_by_file.py"}, "small.yml")
    register_outside([name])
    register_outside([name])
    assert {"own_by_name", "own_by_file"} <= outside.outside_networks().keys()
    net = outside.outside_networks()["own_by_file"](channels=2)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(repr, (net,)) == repr(net)
    Path("numbers.py").touch()
    with pytest.raises(UserError, match="another module is called numbers; rename the file"):
        register_outside(["numbers.py"])


def test_a_restorer_of_any_network():
    class Brighter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by = nn.Parameter(torch.tensor(0.2))

        def forward(self, rainy: torch.Tensor) -> torch.Tensor:
            return rainy + self.by

    net = Brighter()
    restorer = Restorer(net, device="cpu")
    picture = np.full((5, 7, 3), 100, np.uint8)
    assert np.array_equal(restorer(picture), np.full((5, 7, 3), 151))
    assert restorer.describe() == "Brighter (0.00 M parameters) on cpu, float32"
    assert net.training, "it stays as it is"
    assert net.by.requires_grad


def test_the_example_under_a_users_script_with_processes_that_are_spawned(pairs, tmp_path):
    shorter = ("train:total_iter=2", "val:val_freq=2", "datasets:train:batch_size_per_gpu=2", "logger:print_freq=1")
    data = [f"datasets:{phase}:dataroot={pairs}" for phase in ("train", "val")]
    start = "torch.multiprocessing.set_start_method('spawn')"
    script = USERS_SCRIPT.format(first="from drsformer_arch.plugin import train_pipeline", start=start)
    said = run(tmp_path, script, "-opt", str(EXAMPLE / "train.yml"), "--force_yml", *shorter, *data)
    assert "[TwoConvolutions] is created" in said
    assert len(re.findall(r"l_pix: [\d.e+-]+", said)) == 2
