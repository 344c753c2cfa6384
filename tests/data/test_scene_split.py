"""The scene split: copies of a photograph stay together, whatever set they are in and however they were changed."""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage

from drsformer_arch.cli import main
from drsformer_arch.data.prepare.perceptual_hash import parse_scene_hash, scene_hash

Picture = np.ndarray
PARTS = ("val", "train")
NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg", "retina.jpg", "coins.png")
NAMES += ("camera.png", "brick.png", "grass.png", "gravel.png", "moon.png", "page.png", "ihc.png")
PHOTOGRAPHS = [cv2.imread(str(Path(skimage.__file__).parent / "data" / name)) for name in NAMES]


def jpeg(picture: Picture, quality: int) -> Picture:
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def scaled(picture: Picture, factor: float) -> Picture:
    return cv2.resize(picture, None, fx=factor, fy=factor * 0.98, interpolation=cv2.INTER_AREA)


COPIES: dict[str, Callable[[Picture], Picture]] = {
    "mirrored": lambda picture: picture[:, ::-1],
    "upside down": lambda picture: picture[::-1],
    "turned": np.rot90,
    "rescaled": lambda picture: scaled(picture, 0.9),
    "small": lambda picture: scaled(picture, 0.4),
    "JPEG": lambda picture: jpeg(picture, 30),
    "brighter, cut, in gray": lambda picture: (
        cv2.convertScaleAbs(picture[4:-3, 2:-5], alpha=1.1).mean(axis=2).astype(np.uint8)
    ),
    "all": lambda picture: jpeg(scaled(picture[3:, :-3, ::-1], 0.8), 50)[:, ::-1],
}


def run(*arguments: object) -> int:
    return main(["split-scenes", *map(str, arguments)])


def tiles() -> list[Picture]:
    """40 pictures that show different things."""
    cut = []
    for picture in PHOTOGRAPHS[:5]:
        height, width = (side // 2 for side in picture.shape[:2])
        cut += [picture[top : top + height, left : left + width] for top in (0, height) for left in (0, width)]
        height, width = (side // 3 for side in picture.shape[:2])
        cut += [picture[height : 2 * height, left : left + width] for left in (0, width, 2 * width)]
        cut.append(picture[2 * height : 3 * height, width // 2 : width // 2 + width])
    return cut


def rainy(picture: Picture) -> Picture:
    return np.minimum(picture, 200) + 55


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    """Sets `a` and `b` of pairs and `c` of clean pictures; a name ends in the number of the tile that it shows."""
    root = tmp_path_factory.mktemp("sets")
    pictures = tiles()
    copies = list(COPIES.values())
    content = {
        "a": [(f"{tile:02d}", pictures[tile], ".png") for tile in range(24)]
        + [(f"again-{tile:02d}", copies[tile % len(copies)](pictures[tile]), ".png") for tile in range(8)],
        "b": [(f"x-{tile:02d}", copies[-tile % len(copies)](pictures[tile]), ".bmp") for tile in range(12, 36)],
        "c": [(f"in/{tile:02d}", copies[(tile + 3) % len(copies)](pictures[tile]), ".png") for tile in range(8, 40)],
    }
    for name, of_set in content.items():
        for key, picture, suffix in of_set:
            roles = {"target": picture, "input": rainy(picture)} if name != "c" else {"": picture}
            for role, one in roles.items():
                path = root / name / role / f"{key}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), one)
    return root


def sources(sets: Path, *names: str) -> list[str]:
    pairs = [f"{name}={sets / name}" for name in names if name != "c"]
    return [*pairs, *(("--clean", f"c={sets / 'c'}") if "c" in names else ())]


def parts_of(manifest: Path, name: str) -> dict[str, str]:
    """File to part."""
    of_set = json.loads(manifest.read_text())["sets"][name]
    return {file: part for part in PARTS for entry in of_set[part] for file in entry["files"]}


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_copies_look_the_same_and_other_photographs_do_not():
    hashes = [scene_hash(picture) for picture in PHOTOGRAPHS]
    for name, one, picture in zip(NAMES, hashes, PHOTOGRAPHS, strict=True):
        for kind, copy in COPIES.items():
            changed = copy(picture)
            other = scene_hash(np.ascontiguousarray(changed.reshape(*changed.shape[:2], -1)))
            assert one.is_near(other), (name, kind)
            assert other.is_near(parse_scene_hash(one.digits)), (name, kind)
    for one, other in itertools.combinations(range(len(NAMES)), 2):
        assert not hashes[one].is_near(hashes[other]), (NAMES[one], NAMES[other])


def test_no_set_trains_on_what_another_validates(sets, tmp_path, capsys):
    settings = ["--count", "b=6", "--share", "0.3", "--same", "a/01", "c/in/39", "--save", tmp_path / "scenes.json"]
    assert run(*sources(sets, "a", "b", "c"), *settings, "-o", tmp_path / "out") == 0
    assert "| b | 24 | 24 | 24 | 6 | 6 |" in capsys.readouterr().out

    tiles_of: dict[str, set[int]] = defaultdict(set)
    made: dict[str, set[Path]] = defaultdict(set)
    for path in (tmp_path / "out").rglob("*.*"):
        name, part = path.relative_to(tmp_path / "out").parts[:2]
        tiles_of[part].add(int(path.stem[-2:]))
        made[name].add(Path(*path.relative_to(tmp_path / "out" / name / part).parts))
    assert tiles_of["val"]
    assert not tiles_of["val"] & tiles_of["train"]
    assert tiles_of["val"] | tiles_of["train"] == set(range(40))
    decided = json.loads((tmp_path / "scenes.json").read_text())["sets"]
    scene_of = {
        file: entry["scene"]
        for one in decided.values()
        for part in PARTS
        for entry in one[part]
        for file in entry["files"]
    }
    assert scene_of["01"] == scene_of["in/39"] != scene_of["02"]
    # Every file is in one part, as it was.
    for name in "abc":
        assert made[name] == {path.relative_to(sets / name) for path in (sets / name).rglob("*.*")}
    for path in (tmp_path / "out/a/train/input").iterdir():
        assert path.samefile(sets / "a/input" / path.name)


def test_order_and_other_sets_move_nothing(sets, tmp_path):
    def decide(name: str, given: Iterable[str], *more: object) -> Path:
        assert run(*given, *more, "--share", "0.3", "--save", tmp_path / name) == 0
        return tmp_path / name

    same = ("--same", "a/02", "a/05")
    alone = decide("a.json", sources(sets, "a"), *same)
    both = decide("ab.json", sources(sets, "a", "b"), *same)
    assert both.read_bytes() == decide("ba.json", sources(sets, "b", "a"), *same).read_bytes()
    assert set(PARTS) == set(parts_of(alone, "a").values())
    for tile in range(24):  # those of a that b has no copy of
        if tile < 12:
            assert parts_of(alone, "a")[f"{tile:02d}"] == parts_of(both, "a")[f"{tile:02d}"]

    kept = decide("kept.json", sources(sets, "a", "b", "c"), "--keep", alone, "--count", "b=12")
    assert json.loads(kept.read_text())["sets"]["a"] == json.loads(alone.read_text())["sets"]["a"]
    assert list(parts_of(kept, "b").values()).count("val") == 12
    parts = {key[-2:]: part for name in "abc" for key, part in parts_of(kept, name).items()}
    assert all(parts[key[-2:]] == part for name in "abc" for key, part in parts_of(kept, name).items())


def test_manifest_makes_the_same_folders_and_knows_its_files(sets, tmp_path, capsys):
    manifest, given = tmp_path / "scenes.json", sources(sets, "a", "b", "c")
    assert run(*given, "--save", manifest, "-o", tmp_path / "one") == 0
    assert run(*reversed(given[:2]), *given[2:], "--manifest", manifest, "-o", tmp_path / "two") == 0
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two")
    assert str(tmp_path) not in manifest.read_text()
    assert run(*given, "--manifest", manifest, "-o", tmp_path / "one") == 0
    assert "complete already" in capsys.readouterr().out

    other = tmp_path / "other"
    for name, tile in (("99", 30), ("00", 30)):  # a picture that it does not know, and another one of a known name
        for role in ("input", "target"):
            (other / role).mkdir(parents=True, exist_ok=True)
            for path in (sets / "a" / role).iterdir():
                (other / role / path.name).write_bytes(path.read_bytes())
            cv2.imwrite(str(other / role / f"{name}.png"), tiles()[tile])
        assert run(f"a={other}", "--manifest", manifest, "-o", tmp_path / "three") == 2
        error = capsys.readouterr().err
        assert name in error
        assert error.count("\n") == 1
        for role in ("input", "target"):
            (other / role / f"{name}.png").unlink()
    (tmp_path / "two/a/train/more.txt").touch()
    assert run(*given, "--manifest", manifest, "-o", tmp_path / "two") == 2
    assert "other content (a/train/more.txt)" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"scenes.json", "one", "two", "other"}
