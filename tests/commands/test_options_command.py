"""`drsformer options`: recipes that travel with the package, edited without losing a comment."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from drsformer_arch.archs import NETWORKS
from drsformer_arch.cli import main
from drsformer_arch.options.reading import override, read_options
from drsformer_arch.options.safe_yaml import load_yaml

ROOT = Path(__file__).parents[2]
SHIPPED = {str(path.relative_to(ROOT / "options")): path for path in (ROOT / "options").rglob("*.yml")}


def said(capsys, *arguments: str) -> str:
    assert main(["options", *arguments]) == 0
    return capsys.readouterr().out


def test_all_option_files_of_the_repository_are_listed_and_written_with_their_comments(capsys):
    listed = said(capsys).splitlines()
    assert {line.split()[0] + ".yml" for line in listed} == set(SHIPPED)
    assert len({re.match(r"\S+\s+", line).end() for line in listed}) == 1  # aligned
    for name in ("quickstart", "options/train/DRSformer/Rain200H.yml"):
        path = ROOT / "options" / (name.removeprefix("options/").removesuffix(".yml") + ".yml")
        lines = path.read_text().splitlines()
        written = said(capsys, name).splitlines()
        assert written[0] == lines[1]
        body = lines.index("")
        assert written[written.index("") :] == lines[body:]
    found = said(capsys, "--find", "TRAIN", "rain200h", "recipe").splitlines()
    assert {line.split("/")[1] for line in found} == {kind.__name__ for kind in NETWORKS} - {"DRSformer"}


def test_options_are_set_in_the_text_and_read_as_force_yml_reads_them(tmp_path, capsys):
    entries = [
        "name='it''s: heavy'",
        "train:amp=bf16",
        "train:optim_g:lr=1e-4",
        "train:optim_g:fused=false",
        "train:pixel_opt={type: PSNRLoss, eps: 1e-4}",
        "train:scheduler:periods=[100000, 200000]",
        "train:max_nonfinite_skips=3",
        "train:perceptual_opt=~",
        "network_g:num_blocks=[1, 2, 2, 2]",
        "datasets:train:io_backend={}",
        "datasets:train:io_backend:type=disk",
        "path:pretrain_network_g=DRSformer-S",
        "logger:save_best=psnr",
        "val=",
        "val:metrics={psnr: {type: calculate_psnr_ddn}}",
        "val:metrics:no={type: calculate_psnr_ddn}",
        "dist_params:timeout_minutes=3",
    ]
    recipe = "train/DRSformer/Rain200H"
    (tmp_path / "mine.yml").write_text(text := said(capsys, recipe, "--set", *entries))
    expected = load_yaml(SHIPPED[f"{recipe}.yml"])
    override(expected, entries)
    assert load_yaml(tmp_path / "mine.yml") == expected
    read_options(tmp_path / "mine.yml", is_train=True)
    comments = {line.partition("#")[2] for line in said(capsys, recipe).splitlines()}
    lost = [comment for comment in comments if f"#{comment}" not in text]
    assert lost == [" the rain200 protocol: the one of the published scores of this data set"]  # of what was emptied
    for name, path in SHIPPED.items():
        options = load_yaml(path)
        value = yaml.safe_load(said(capsys, name, "--set", f"name={options['name']}_2"))
        assert value == options | {"name": f"{options['name']}_2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train/DRSformr/Rain200H"], "there is no recipe 'train/DRSformr/Rain200H'; did you mean 'train/DRSformer"),
        (["SPA-Data"], "there is no recipe 'SPA-Data'; there are test/DRSformer/SPA-Data, test/DualGCN/SPA-Data"),
        (["--find", "rain300"], "no recipe has rain300"),
        (["quickstart", "--set", "train:totl_iter=4"], "unknown option train.totl_iter; did you mean 'total_iter'?"),
        (["quickstart", "--set", "trian:total_iter=4"], "--set trian:total_iter=4: there is no section 'trian'; did"),
        (["quickstart", "--set", "train:total_iter=x"], "option train.total_iter must be a whole number of at least 1"),
        (["quickstart", "--set", "network_g:dmi=24"], "unknown option network_g.dmi; did you mean 'dim'?"),
        (["quickstart", "--set", "train:pixel_opt:type=L1Los"], "nothing is registered as 'L1Los'; did you mean 'L1Lo"),
        (["quickstart", "--set", "=x"], "unknown option ; known: channels_last"),
        (["quickstart", "--set", "a#b=1"], "unknown option a#b; known: channels_last"),
        (["quickstart", "-o", "."], ". is a folder; give the name of a file"),
        (["quickstart", "--set", "name"], "--set name: expected KEY:KEY=VALUE"),
        (["quickstart", "--set", "name=[1"], "--set name=[1: '[1' is no YAML value"),
        (["quickstart", "--schema"], "--schema writes the schema of all option files"),
        (["--set", "name=x"], "which recipe is to be written?"),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, message):
    assert main(["options", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_arguments_of_networks_are_checked_without_basicsr(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "basicsr", None)
    assert main(["options", "quickstart", "--set", "network_g:dmi=24"]) == 2
    assert "DRSformer has no argument dmi; did you mean 'dim'?" in capsys.readouterr().err
    assert "dim: 24" in said(capsys, "quickstart", "--set", "network_g:dim=24")


def test_a_file_names_the_schema_above_it_and_is_never_overwritten_unasked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said(capsys, "--schema", "-o", "schema.json")
    assert Path("schema.json").read_text() == (ROOT / "options/schema.json").read_text()
    said(capsys, "quickstart", "-o", "files/my.yml")
    first, *lines = Path("files/my.yml").read_text().splitlines()
    assert first == "# yaml-language-server: $schema=../schema.json"
    assert "#   drsformer train -opt files/my.yml" in lines
    # The other file need not be there: what makes it is said.
    made_by = "drsformer options quickstart_test -o quickstart_test.yml"
    assert f"#   drsformer test -opt quickstart_test.yml   # made by: {made_by}" in lines
    Path("files/my.yml").write_text("mine")
    assert main(["options", "quickstart", "-o", "files/my.yml"]) == 2
    assert "files/my.yml is there already" in capsys.readouterr().err
    assert Path("files/my.yml").read_text() == "mine"
    said(capsys, "quickstart", "-o", "files/my.yml", "--overwrite")
    assert Path("files/my.yml").read_text().splitlines() == [first, *lines]


def test_a_reader_that_has_seen_enough_is_no_error():
    run = "import sys; from drsformer_arch.cli import main; sys.exit(main(['options', 'train/DRSformer/Rain200H']))"
    with subprocess.Popen([sys.executable, "-c", run], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
