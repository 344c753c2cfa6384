"""Every circulating layout gives the same pairs, and what is not a pair is named.

The pictures are cuts of photographs: that a pair is one is seen from its content, and not only from its name.
"""

import os
import shutil
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from drsformer_arch.data.pairing.benchmarks import count_warning
from drsformer_arch.data.pairing.pair_keys import SourcePair
from drsformer_arch.data.pairing.source_pairs import SourcePairs, find_source_pairs
from drsformer_arch.system.errors import UserError

# An accent in two forms, another script, dots, blanks, and names that are the beginning of others.
NAMES = ("1", "11", "im.v1", "cafe\N{COMBINING ACUTE ACCENT} 2", "雨天")
KEYS = [unicodedata.normalize("NFC", name) for name in sorted(NAMES)]
PHOTOGRAPHS = np.stack([data.astronaut()[:, :400], data.coffee()[:400, :512].transpose(1, 0, 2)])[..., ::-1]


def clean_picture(scene: int) -> np.ndarray:
    """Cut another clean picture, (24, 32, 3), for every number."""
    top, left = divmod(scene * 37, 350)
    return np.ascontiguousarray(PHOTOGRAPHS[scene % 2, 40 + top % 400 : 64 + top % 400, left : left + 32])


def rainy_picture(scene: int) -> np.ndarray:
    picture = clean_picture(scene)
    picture[:, ::8] = np.minimum(picture[:, ::8].astype(int) + 90, 255)
    return picture


def write(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # PNG whatever the name says, so that the content stays exact.
    path.write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def write_set(root: Path, rainy: str, clean: str, scenes: Mapping[str, int]) -> None:
    """Write a pair per scene; `{}` stands for its name in the names of the files."""
    for name, scene in scenes.items():
        write(root / rainy.format(name), rainy_picture(scene))
        # As another system writes the same name.
        write(root / clean.format(unicodedata.normalize("NFC", name)), clean_picture(scene))


def halves_of(pair: SourcePair) -> tuple[np.ndarray, np.ndarray]:
    rainy, clean = (cv2.imdecode(np.fromfile(path, np.uint8), 1) for path in (pair.input, pair.target))
    half = rainy.shape[1] // 2
    if pair.halves == "clean_left":
        return rainy[:, half:], clean[:, :half]
    if pair.halves == "rainy_left":
        return rainy[:, :half], clean[:, half:]
    return rainy, clean


def check_content(found: SourcePairs, scenes: Mapping[str, int]) -> None:
    """Assert that every pair is the scene its key says, the rainy picture on the side of the input."""
    for pairs in found.splits.values():
        for pair in pairs:
            rainy, clean = halves_of(pair)
            scene = scenes[pair.key]
            assert np.array_equal(rainy, rainy_picture(scene)), pair
            assert np.array_equal(clean, clean_picture(scene)), pair


def keys(found: SourcePairs) -> dict[str, list[str]]:
    return {split: [pair.key for pair in pairs] for split, pairs in found.splits.items()}


SCENES = {name: scene for scene, name in enumerate(NAMES)}
SCENES_OF_KEYS = {unicodedata.normalize("NFC", name): scene for name, scene in SCENES.items()}


@pytest.mark.parametrize(
    ("dataset", "rainy", "clean"),
    [
        ("rain200l", "input/{}.png", "target/{}.png"),
        ("rain200h", "input/{}.PNG", "target/{}.jpg"),
        ("rain800", "input/{}.jpg", "target/{}.jpg"),
        ("did", "input/{}.jpg", "target/{}.jpg"),
        ("ddn", "input/{}.jpg", "target/{}.jpg"),
        ("spa", "input/{}.png", "target/{}.png"),
        ("rain100l", "rain/{}.png", "norain/{}.png"),
        ("rain100h", "rainy/{}.png", "clean/{}.png"),
        ("rain200l", "Rainy Image/{}.png", "Ground-Truth/{}.png"),
        ("rain200l", "rainy/{}.png", "gt/{}.png"),
        ("rain200l", "rain/rain-{}.png", "norain/norain-{}.png"),
        ("rain200h", "rain/X2/norain-{}x2.png", "norain/norain-{}.png"),
        ("rain200h", "rain/norain-{}x2.png", "norain/norain-{}.png"),
        ("rain100h", "rain/X2/norain-{}x2.png", "norain-{}.png"),
        ("rain100l", "rain/norain-{}x2.PNG", "norain-{}.png"),
        ("rain100h", "rainy/rain-{}.png", "norain-{}.png"),
        ("rain100l", "rain-{}.png", "norain-{}.png"),
        ("spa", "rain/{}.png", "gt/{}gt.png"),
        ("pairs", "lq/{}.webp", "gt/{}.bmp"),
    ],
)
@pytest.mark.parametrize("top", ["", "Copy of a set (2)/v1.2/データ/"])
def test_layouts_of_two_files(tmp_path, dataset, rainy, clean, top):
    root = tmp_path / "source"
    for number, split in enumerate(("Train", "rain_data_test_Light")):
        scenes = {name: scene + 10 * number for name, scene in SCENES.items()}
        write_set(root, f"{top}{split}/{rainy}", f"{top}{split}/{clean}", scenes)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}

    found = find_source_pairs(dataset, [root])
    assert keys(found) == {"train": sorted(KEYS), "test": sorted(KEYS)}
    assert found.warnings == []
    for number, split in enumerate(("train", "test")):
        scenes = {key: scene + 10 * number for key, scene in SCENES_OF_KEYS.items()}
        check_content(SourcePairs({split: found.splits[split]}, ""), scenes)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before

    # Half of the set, or a folder of it, gives the same keys.
    assert keys(find_source_pairs(dataset, [root / top / "Train"])) == {"train": sorted(KEYS)}


def test_layouts_may_differ_from_split_to_split(tmp_path):
    # As Rain100L comes: clean pictures beside the folder, then in one; and folders that belong to neither.
    write_set(tmp_path, "train_Light/rain/norain-{}x2.png", "train_Light/norain-{}.png", {"1": 0, "2": 1})
    write_set(tmp_path, "test_Light/rain/X2/norain-{}x2.png", "test_Light/norain/norain-{}.png", {"001": 2})
    write(tmp_path / "test_Light/rainstreak/norain-001x2s.png", clean_picture(9))
    found = find_source_pairs("rain100l", [tmp_path])
    assert keys(found) == {"train": ["1", "2"], "test": ["001"]}
    check_content(found, {"1": 0, "2": 1, "001": 2})
    assert "rain/norain-{}x2 + norain-{}; rain/X2/norain-{}x2 + norain/norain-{}" in found.layout
    assert [message for message in found.warnings if "1 picture in" in message and "rainstreak" in message]


def test_ddn_has_fourteen_rainy_pictures_for_a_clean_one(tmp_path):
    for clean in ("900", "901_b"):
        write(tmp_path / f"training/ground_truth/{clean}.jpg", clean_picture(1))
        for number in range(1, 15):
            write(tmp_path / f"training/rainy_image/{clean}_{number}.jpg", rainy_picture(1))
    found = find_source_pairs("ddn", [tmp_path])
    assert sorted(keys(found)["train"]) == sorted(f"{clean}_{n}" for clean in ("900", "901_b") for n in range(1, 15))
    assert {pair.target.stem for pair in found.splits["train"] if pair.key.startswith("901")} == {"901_b"}
    assert len({pair.target for pair in found.splits["train"]}) == 2
    assert found.warnings == []

    (tmp_path / "training/rainy_image/900_7.jpg").unlink()
    assert "1 of 2 clean pictures do not have 14 rainy ones" in find_source_pairs("ddn", [tmp_path]).warnings[0]
    (tmp_path / "training/ground_truth/900.jpg").unlink()
    with pytest.raises(UserError, match=r"13 rainy without a clean one \(.*900_1\.jpg, .*, \.\.\.\)"):
        find_source_pairs("ddn", [tmp_path])


@pytest.mark.parametrize(
    ("dataset", "train", "test", "halves"),
    [
        ("rain800", "rain/training", "rain/test_syn", "clean_left"),
        ("did", "DID-MDN-training/Rain_Heavy/train2018new", "DID-MDN-test", "rainy_left"),
    ],
)
def test_both_halves_in_one_picture(tmp_path, dataset, train, test, halves):
    for folder, first in ((train, 0), (test, 10)):
        for name, scene in SCENES.items():
            order = [clean_picture(scene + first), rainy_picture(scene + first)]
            write(tmp_path / folder / f"{name}.jpg", np.hstack(order if halves == "clean_left" else order[::-1]))
    write(tmp_path / "rain/test_nature/real.jpg", clean_picture(8))
    write(tmp_path / "overview.png", clean_picture(9))
    found = find_source_pairs(dataset, [tmp_path])
    if dataset == "rain800":
        assert "test_nature" in found.warnings[-1]
        assert keys(found) == {"train": sorted(KEYS), "test": sorted(KEYS)}
    else:
        assert len(found.splits["train"]) == len(KEYS)
    assert {pair.halves for pairs in found.splits.values() for pair in pairs} == {halves}
    check_content(SourcePairs({"train": found.splits["train"]}, ""), SCENES_OF_KEYS)
    assert any("overview.png" in message for message in found.warnings)

    # The same folder alone, whose name is all there is.
    assert keys(find_source_pairs(dataset, [tmp_path / train])) == {"train": sorted(KEYS)}


def test_equal_names_in_several_folders_stay_apart(tmp_path):
    for number, strength in enumerate(("Rain_Heavy", "Rain_Light")):
        folder = tmp_path / "DID-MDN-training" / strength / "train2018new"
        write(folder / "1.jpg", np.hstack([rainy_picture(number), clean_picture(number)]))
    found = find_source_pairs("did", [tmp_path])
    assert keys(found) == {"train": ["Rain_Heavy/1", "Rain_Light/1"]}
    check_content(found, {"Rain_Heavy/1": 0, "Rain_Light/1": 1})

    write_set(tmp_path / "nested", "input/a/{}.png", "target/a/{}.png", {"1": 0})
    write_set(tmp_path / "nested", "input/b/{}.png", "target/b/{}.png", {"1": 1})
    write_set(tmp_path / "nested", "input/rain/{}.png", "target/rain/{}.png", {"1": 2})
    write_set(tmp_path / "nested", "input/norain/{}.png", "target/norain/{}.png", {"1": 3})
    found = find_source_pairs("rain200l", [tmp_path / "nested"])
    assert keys(found) == {"train": ["a/1", "b/1", "norain/1", "rain/1"]}
    check_content(found, {"a/1": 0, "b/1": 1, "norain/1": 3, "rain/1": 2})


def test_rain13k_keeps_the_names_of_its_test_sets(tmp_path):
    write_set(tmp_path, "train/Rain13K/input/{}.jpg", "train/Rain13K/target/{}.jpg", {"1": 0, "2": 1})
    for scene, part in enumerate(("Test100", "rain100h", "Rain100L", "Test2800", "Test1200")):
        write_set(tmp_path, f"test/{part}/input/{{}}.png", f"test/{part}/target/{{}}.png", {"1": scene})
    found = find_source_pairs("rain13k", [tmp_path])
    parts = ["Rain100H/1", "Rain100L/1", "Test100/1", "Test1200/1", "Test2800/1"]
    assert keys(found) == {"train": ["1", "2"], "test": parts}
    assert "Test2800 has 2,800 pairs as published, this copy has 1" in found.warnings
    # One of them alone keeps its key, and is known to be of the test split by its name.
    for folder, key in (("Test100", "Test100/1"), ("rain100h", "Rain100H/1")):
        assert keys(find_source_pairs("rain13k", [tmp_path / "test" / folder])) == {"test": [key]}


class TestSpaList:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        for video, scene in (("001", 0), ("002", 1)):
            write(tmp_path / f"data/gt of {video}/clean.png", clean_picture(scene))
            for frame in (1, 2):
                write(tmp_path / f"data/real_world/{video}/frame {frame}.png", rainy_picture(scene))
        (tmp_path / "data/README.txt").write_text("Pictures for research only.\n")
        return tmp_path

    def lines(self) -> list[str]:
        rows = ((video, frame) for video in ("001", "002") for frame in (1, 2))
        return [f"real_world/{video}/frame {frame}.png gt of {video}/clean.png" for video, frame in rows]

    @pytest.mark.parametrize("start", ["", "/", "./", "data/", "/data/"])
    def test_paths(self, root, start):
        lines = [" ".join(start + path + ".png" for path in line[:-4].split(".png ")) for line in self.lines()]
        lines[1] = lines[1].replace(".png ", ".png\t")
        (root / "data/train.txt").write_text("\ufeff" + "\r\n".join(lines) + "\r\n\r\n", encoding="utf-8")
        write_set(root, "real_test_1000/rain/{}.png", "real_test_1000/gt/{}gt.png", {"000": 5, "001": 6})
        found = find_source_pairs("spa", [root])
        train = [f"{video}/frame {frame}" for video in ("001", "002") for frame in (1, 2)]
        assert keys(found) == {"train": train, "test": ["000", "001"]}
        check_content(found, {**{key: int(key[2]) - 1 for key in train}, "000": 5, "001": 6})
        assert "pairs listed in train.txt" in found.layout

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("real_world/001/frame 3.png gt of 001/clean.png", "line 5: there is no picture 'real_world/001/frame 3"),
            ("real_world/001/frame 1.png gt/clean.png", "line 5: there is no picture 'gt/clean.png'"),
            ("../../x.png gt of 001/clean.png", "line 5: there is no picture '../../x.png'"),
            ("real_world/001/frame 1.png", "line 5: 'real_world/001/frame 1.png' is not a rainy and a clean"),
            ("real_world/001/frame 1.png gt of 001/clean.png", "two pairs .* have the name '001/frame 1'"),
        ],
    )
    def test_faults_are_named_with_their_line(self, root, line, message):
        (root / "data/pairs.txt").write_text("\n".join([*self.lines(), line]))
        with pytest.raises(UserError, match=message):
            find_source_pairs("spa", [root])


def test_splits(tmp_path):
    def splits_of(*folders: str, dataset: str = "rain100l", count: int = 1, split: str | None = None) -> dict:
        root = tmp_path / str(len(list(tmp_path.iterdir()))) / "latest strong LightRain"
        for folder in folders:
            names = {str(number): number % 4 for number in range(count)}
            write_set(root, f"{folder}/input/{{}}.png", f"{folder}/target/{{}}.png", names)
        found = find_source_pairs(dataset, [root], split=split)
        return {name: len(pairs) for name, pairs in found.splits.items()} | {"warnings": len(found.warnings)}

    assert splits_of("a") == {"train": 1, "warnings": 0}
    assert splits_of("a", split="test") == {"test": 1, "warnings": 0}
    assert splits_of("a", count=100) == {"test": 100, "warnings": 0}
    assert splits_of("a", count=100, split="train") == {"train": 100, "warnings": 0}
    assert splits_of("a", count=100, dataset="pairs") == {"train": 100, "warnings": 0}
    assert splits_of("TEST", "a", count=100) == {"train": 100, "test": 100, "warnings": 0}
    # The nearest folder counts, and one that says both says nothing.
    assert splits_of("test/training", "test/train_and_test", "train/RainTestL") == {
        "train": 1,
        "test": 2,
        "warnings": 0,
    }
    # What the folders say is not overruled in silence.
    assert splits_of("train", split="test") == {"train": 1, "warnings": 1}
    assert splits_of("train", "test", split="test") == {"train": 1, "test": 1, "warnings": 0}
    assert splits_of("train", "val") == {"train": 1, "test": 1, "warnings": 1}
    assert splits_of("train", "Validation", "test") == {"train": 1, "test": 1, "val": 1, "warnings": 0}
    with pytest.raises(UserError, match="unknown split 'tset'; did you mean 'test'"):
        splits_of("a", split="tset")


def test_what_is_no_picture_of_the_set_is_passed_over(tmp_path):
    root = tmp_path / "source"
    write_set(root, "input/{}.png", "target/{}.png", {"1": 0, "2": 1})
    for junk in ("__MACOSX/input/7.png", "input/._1.png", ".git/input/7.png", "input/Thumbs.db", "input/list.txt"):
        (root / junk).parent.mkdir(parents=True, exist_ok=True)
        (root / junk).write_bytes(b"junk")
    found = find_source_pairs("rain200l", [root])
    assert keys(found) == {"train": ["1", "2"]}
    assert found.warnings == []


def test_links_are_followed_once(tmp_path):
    root = tmp_path / "source"
    write_set(tmp_path, "elsewhere/{}.png", "source/train/target/{}.png", {"1": 0, "2": 1})
    (root / "train/input").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "train/again").symlink_to(root, target_is_directory=True)
    found = find_source_pairs("rain200l", [root])
    assert keys(found) == {"train": ["1", "2"]}
    check_content(found, {"1": 0, "2": 1})
    (root / "train/round").symlink_to("round")
    for number, target in (("3", "gone.png"), ("4", "4.png")):  # pictures by their names: read_file says what is wrong
        (tmp_path / f"elsewhere/{number}.png").symlink_to(target)
        shutil.copy(root / "train/target/1.png", root / f"train/target/{number}.png")
    assert keys(find_source_pairs("rain200l", [root])) == {"train": ["1", "2", "3", "4"]}


class TestMissingPartners:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        for split in ("train", "test"):
            scenes = {str(number): number for number in range(6)}
            write_set(tmp_path, f"{split}/rain/rain-{{}}.png", f"{split}/norain/norain-{{}}.png", scenes)
        return tmp_path

    def test_single_files(self, root):
        for name in ("train/norain/norain-2.png", "test/rain/rain-5.png", "test/rain/rain-4.png"):
            (root / name).unlink()
        with pytest.raises(UserError) as caught:
            find_source_pairs("rain200l", [root])
        message = str(caught.value)
        assert "1 rainy without a clean one" in message
        assert "train/rain/rain-2.png" in message
        assert "2 clean without a rainy one" in message
        assert "test/norain/norain-5.png" in message

    @pytest.mark.parametrize(("folder", "left"), [("test/norain", "6 rainy"), ("train/rain", "6 clean")])
    def test_whole_folders(self, root, folder, left):
        for path in (root / folder).iterdir():
            path.unlink()
        with pytest.raises(UserError, match=f"{left} without"):
            find_source_pairs("rain200l", [root])

    def test_names_that_differ_only_in_capitals_are_no_pair(self, root):
        os.rename(root / "train/rain/rain-1.png", root / "train/rain/rain-a.png")
        os.rename(root / "train/norain/norain-1.png", root / "train/norain/norain-A.png")
        with pytest.raises(UserError, match=r"1 rainy .* and 1 clean"):
            find_source_pairs("rain200l", [root])

    def test_two_files_of_one_name(self, root):
        write(root / "train/rain/rain-3.JPG", rainy_picture(7))
        with pytest.raises(UserError, match=r"the name '3': .*rain-3\.(JPG|png) .* and .*rain-3\.(JPG|png) "):
            find_source_pairs("rain200l", [root])
        (root / "train/rain/rain-3.JPG").rename(root / "train/norain/norain-3.JPG")
        with pytest.raises(UserError, match=r"two clean pictures for one name: .*norain-3\.JPG and .*norain-3\.png"):
            find_source_pairs("rain200l", [root])

    def test_names_that_are_no_text(self, root):
        for folder in (b"rain/rain-", b"norain/norain-"):
            (root / "train" / os.fsdecode(folder + b"\xff.png")).write_bytes(b"")
        with pytest.raises(UserError, match="not in UTF-8"):
            find_source_pairs("rain200l", [root])


class TestPairs:
    def test_two_folders(self, tmp_path):
        scenes = {"a/1": 0, "b/1": 1, "雨 2.x": 2}
        write_set(tmp_path, "mine/with rain/{}.PNG", "other/without/{}.jpeg", scenes)
        folders = [tmp_path / "mine/with rain", tmp_path / "other/without"]
        found = find_source_pairs("pairs", folders)
        assert keys(found) == {"train": ["a/1", "b/1", "雨 2.x"]}
        check_content(found, scenes)
        # The order says which is which.
        assert find_source_pairs("pairs", folders[::-1]).splits["train"][0].target == folders[0] / "a/1.PNG"
        (folders[0] / "a/1.PNG").unlink()
        with pytest.raises(UserError, match=r"1 clean without a rainy one \(.*other/without/a/1\.jpeg\)"):
            find_source_pairs("pairs", folders)

    @pytest.mark.parametrize(
        ("rainy", "clean"),
        [
            ("wet/{}_rain.png", "dry/{}_clean.png"),
            ("wet/{}_in.png", "dry/{}.png"),
            ("wet/rain-{}.png", "dry/norain-{}.png"),
        ],
    )
    def test_two_folders_with_names_by_one_rule(self, tmp_path, rainy, clean):
        write_set(tmp_path, rainy, clean, SCENES)
        found = find_source_pairs("pairs", [tmp_path / "wet", tmp_path / "dry"])
        assert keys(found) == {"train": sorted(KEYS)}
        check_content(found, SCENES_OF_KEYS)
        write(tmp_path / "dry/more.png", rainy_picture(0))  # no rule pairs all of them
        with pytest.raises(UserError, match="no pairs of"):
            find_source_pairs("pairs", [tmp_path / "wet", tmp_path / "dry"])

    @pytest.mark.parametrize("folders", [("rain/", "clean/"), ("", "")])
    def test_endings_that_say_the_side(self, tmp_path, folders):
        write_set(tmp_path, f"train/{folders[0]}{{}}_rain.png", f"train/{folders[1]}{{}}_clean.png", SCENES)
        found = find_source_pairs("pairs", [tmp_path])
        assert keys(found) == {"train": sorted(KEYS)}
        check_content(found, SCENES_OF_KEYS)

    @pytest.mark.parametrize(
        ("rainy", "clean", "patterns"),
        [
            ("train/wet/{}x2.png", "train/dry/{}.png", ("wet/{}x2", "dry/{}")),
            ("train/wet/{}x2.png", "train/dry/{}.png", ("./wet/{}x2.png", "/dry/{}.jpg")),
            ("deep/train/{}_in.png", "deep/train/{}_out.png", ("{}_in", "{}_out")),
            ("train/{}.png", "train/{}_clean.png", ("{}", "{}_clean")),
            ("train/wet/set.{}.7.png", "train/dry/[{}].png", ("wet/set.{}.#", "dry/[{}]")),
        ],
    )
    def test_patterns(self, tmp_path, rainy, clean, patterns):
        write_set(tmp_path, rainy, clean, SCENES)
        found = find_source_pairs("pairs", [tmp_path], patterns=patterns)
        strange = {f"{key}.7": scene for key, scene in SCENES_OF_KEYS.items()}
        scenes = strange if "#" in patterns[0] else SCENES_OF_KEYS
        assert keys(found) == {"train": sorted(scenes)}
        check_content(found, scenes)

    def test_patterns_for_two_folders(self, tmp_path):
        write_set(tmp_path, "wet/{}x2.png", "dry/{}.png", SCENES)
        found = find_source_pairs("pairs", [tmp_path / "wet", tmp_path / "dry"], patterns=("{}x2", "{}"))
        check_content(found, SCENES_OF_KEYS)
        assert keys(found) == {"train": sorted(KEYS)}

    def test_a_pattern_leaves_no_picture_alone(self, tmp_path):
        write_set(tmp_path, "train/wet/{}x2.png", "train/dry/{}.png", {"1": 0})
        write(tmp_path / "test/wet/1x2.png", rainy_picture(1))
        with pytest.raises(UserError, match=r"1 rainy without a clean one \(.*test/wet/1x2\.png\)"):
            find_source_pairs("rain200l", [tmp_path], patterns=("wet/{}x2", "dry/{}"))

    @pytest.mark.parametrize("patterns", [("wet/x2", "dry/{}"), ("{}/{}", "dry/{}"), ("{}/a", "{}/b"), ("{}", "{}_#")])
    def test_patterns_that_are_none(self, tmp_path, patterns):
        with pytest.raises(UserError, match="pattern"):
            find_source_pairs("pairs", [tmp_path], patterns=patterns)


class TestErrors:
    def test_unknown_set(self, tmp_path):
        with pytest.raises(UserError, match="unknown data set 'rain200'; did you mean 'rain200"):
            find_source_pairs("rain200", [tmp_path])

    def test_no_folder(self, tmp_path):
        with pytest.raises(UserError, match="gone does not exist"):
            find_source_pairs("rain200l", [tmp_path / "gone"])
        (tmp_path / "set.rar").write_bytes(b"")
        with pytest.raises(UserError, match=r"set\.rar is no folder"):
            find_source_pairs("rain200l", [tmp_path / "set.rar"])

    def test_nothing_found(self, tmp_path):
        with pytest.raises(UserError, match=r"no pairs of Rain200L .* found no pictures; looked for rain/NAME \+ nor"):
            find_source_pairs("rain200l", [tmp_path])
        write(tmp_path / "input/1.png", rainy_picture(0))
        write(tmp_path / "Test.zip", rainy_picture(0))
        with pytest.raises(UserError, match=r"found 1 picture in .*input \(1\.png\); archives.*Test\.zip"):
            find_source_pairs("rain800", [tmp_path])

    def test_unreadable_folder(self, tmp_path, monkeypatch):
        write_set(tmp_path, "input/{}.png", "target/{}.png", {"1": 0})

        def refuse(path, scandir=os.scandir):
            if str(path).endswith("target"):
                raise PermissionError(13, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)  # file modes do not stop an administrator
        with pytest.raises(UserError, match=r"cannot read folder .*target: Permission denied"):
            find_source_pairs("rain200l", [tmp_path])


def test_count_warning():
    assert count_warning("rain200l", "train", 1800) is None
    assert count_warning("pairs", "train", 7) is None
    assert count_warning("rain200l", "val", 7) is None
    assert "PReNet" in str(count_warning("rain100h", "train", 1254))
    assert "this copy has 637,000: something is missing" in str(count_warning("spa", "train", 637_000))
    with pytest.raises(UserError, match="unknown data set"):
        count_warning("nothing", "train", 1)
