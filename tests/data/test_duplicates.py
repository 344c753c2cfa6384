"""Copies of a picture are found however they were saved, and nothing else is taken for one."""

import hashlib

import cv2
import numpy as np
import pytest
from skimage import data

from drsformer_arch.data.prepare import duplicates
from drsformer_arch.data.prepare.duplicates import Fingerprints, Near, find_duplicates
from drsformer_arch.data.prepare.perceptual_hash import NEAR, perceptual_hash

PHOTOGRAPHS = {
    "astronaut": data.astronaut(),
    "coffee": data.coffee(),
    "chelsea": data.chelsea(),
    "rocket": data.rocket(),
    "retina": data.retina(),
    "camera": data.camera(),
    "coins": data.coins(),
    "motorcycle": data.stereo_motorcycle()[0],
    "hubble": data.hubble_deep_field(),
}


def saved_as_jpeg(picture: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_UNCHANGED)


COPIES = {
    "jpeg": saved_as_jpeg,
    "smaller": lambda picture: cv2.resize(picture, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA),
    "larger": lambda picture: cv2.resize(picture, None, fx=1.3, fy=1.3, interpolation=cv2.INTER_CUBIC),
    "of another shape": lambda picture: cv2.resize(picture, (512, 384)),
    "darker": lambda picture: cv2.convertScaleAbs(picture, alpha=0.9),
    "noisy": lambda picture: cv2.add(picture, np.random.default_rng(0).integers(0, 12, picture.shape).astype(np.uint8)),
    "of a pixel less": lambda picture: picture[1:-1, 1:-1],
}


def distance(one: int, two: int) -> int:
    return (one ^ two).bit_count()


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_near(copy):
    for name, picture in PHOTOGRAPHS.items():
        original = perceptual_hash(picture)
        assert original, name
        assert distance(original, perceptual_hash(COPIES[copy](picture))) <= NEAR, name


def test_other_photographs_are_far():
    hashes = {name: perceptual_hash(picture) for name, picture in PHOTOGRAPHS.items()}
    for name, one in hashes.items():
        assert one.bit_count() == 32, name
        for other, two in hashes.items():
            assert name == other or distance(one, two) > 12, (name, other)


def test_the_hash_is_that_of_the_picture_and_not_of_its_form():
    for picture in PHOTOGRAPHS.values():
        expected = perceptual_hash(picture)
        assert perceptual_hash(picture.astype(np.uint16) * 257) == expected
        assert perceptual_hash(picture.astype(np.uint16) * 256 + 99) == expected
        assert perceptual_hash(picture[::-1][::-1]) == expected
        if picture.ndim == 3:
            assert perceptual_hash(picture[..., ::-1]) == expected  # BGR
            assert perceptual_hash(np.dstack([picture, np.zeros_like(picture[..., 0])])) == expected  # alpha
        else:
            assert perceptual_hash(picture[..., None]) == expected == perceptual_hash(np.dstack([picture] * 3))


def test_flat_pictures_have_no_hash():
    sky = np.tile(np.linspace(200, 240, 300).astype(np.uint8)[:, None, None], (1, 400, 3))
    roof = sky.copy()
    roof[270:, 360:] = PHOTOGRAPHS["coffee"][:30, :40]
    night = np.random.default_rng(0).poisson(3, (300, 400)).astype(np.uint8)
    for picture in (sky, roof, night, np.zeros((8, 8), np.uint8), np.full((50, 60, 3), 65535, np.uint16)):
        assert perceptual_hash(picture) == 0


@pytest.mark.parametrize(
    "picture", [np.zeros((4, 4)), np.zeros(4, np.uint8), np.zeros((0, 4), np.uint8), np.zeros((1, 1, 4, 4), np.uint8)]
)
def test_what_is_no_picture(picture):
    with pytest.raises(ValueError, match="a picture is"):
        perceptual_hash(picture)


def fingerprints(split: str, pictures: dict[str, np.ndarray]) -> Fingerprints:
    return Fingerprints(
        split,
        list(pictures),
        [hashlib.sha256(picture.tobytes()).digest() for picture in pictures.values()],
        np.array([perceptual_hash(picture) for picture in pictures.values()], dtype=np.uint64),
    )


def test_train_and_test():
    p = PHOTOGRAPHS
    white = np.full((30, 30, 3), 255, np.uint8)
    train = fingerprints(
        "train", {"a": p["astronaut"], "b": p["coffee"], "b2": p["coffee"], "c": p["chelsea"], "white": white}
    )
    test = fingerprints(
        "test",
        {
            "1": p["rocket"],
            "2": p["coffee"],
            "3": saved_as_jpeg(p["coffee"]),
            "4": COPIES["smaller"](p["astronaut"]),
            "5": white,
            "6": white[1:],
        },
    )
    found = find_duplicates(test, train)
    assert found.exact == [("2", "b", "b2"), ("5", "white")]
    assert [(near.name, near.other) for near in found.near] == [("3", "b"), ("4", "a")]
    assert found.describe() == [
        "2 of 6 test pictures are also in train (exact): 2 = b, 5 = white",
        "2 of 6 test pictures are also in train (the same photograph in another file): 3 ~ b, 4 ~ a",
        "2 of 6 test pictures are too flat to be recognised in another file",
    ]
    apart = find_duplicates(fingerprints("test", {"1": p["rocket"]}), train)
    assert apart.describe() == ["none of 1 test pictures are also in train"]
    assert find_duplicates(fingerprints("test", {}), train).describe() == ["none of 0 test pictures are also in train"]


def test_one_split():
    p = PHOTOGRAPHS
    pictures = {"a": p["astronaut"], "b": p["coffee"], "c": p["chelsea"], "a again": p["astronaut"]}
    pictures |= {"a as jpeg": saved_as_jpeg(p["astronaut"]), "c deep": p["chelsea"].astype(np.uint16) * 257}
    found = find_duplicates(fingerprints("train", pictures))
    assert found.exact == [("a", "a again")]
    # A group of equal files counts once among the near ones; the 16-bit copy has the very same hash.
    assert [near[:2] for near in found.near] == [
        ("a", "a as jpeg"),
        ("c", "c deep"),
        ("a as jpeg", "a"),
        ("c deep", "c"),
    ]
    assert found.exact_pictures == 2
    assert found.describe()[0] == "2 of 6 train pictures occur more than once (exact): a = a again"


def plain_search(split: Fingerprints) -> dict[str, int]:
    """Distance of the nearest other picture, by comparing all."""
    distances = np.bitwise_count(split.perceptual[:, None] ^ split.perceptual)
    np.fill_diagonal(distances, 64)
    return {name: int(least) for name, least in zip(split.names, distances.min(axis=1), strict=True) if least <= NEAR}


def hashes_in_families(count: int, seed: int) -> np.ndarray:
    """Hashes that differ from one of few by 0 to 7 bits anywhere."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(1, 2**64 - 1, size=20, dtype=np.uint64)[rng.integers(0, 20, count)]
    for _ in range(7):
        bits = np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64)
        hashes = np.where(rng.random(count) < 0.5, hashes ^ bits, hashes)
    return hashes


@pytest.mark.parametrize("seed", range(5))
def test_bands_and_blocks_find_what_comparing_all_finds(seed, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK", (64, 100))
    hashes = hashes_in_families(1500, seed)
    names = [str(number) for number in range(len(hashes))]
    split = Fingerprints("train", names, names, hashes)
    found = find_duplicates(split)
    assert {near.name: near.distance for near in found.near} == plain_search(split)
    for near in found.near:
        assert near.distance == int(np.bitwise_count(hashes[int(near.name)] ^ hashes[int(near.other)]))
        assert near.name != near.other
    assert found.partly_compared == 0

    # The same between two splits, which are compared in blocks.
    half = Fingerprints("test", names[:700], [f"other {name}" for name in names[:700]], hashes[:700])
    rest = Fingerprints("train", names[700:], names[700:], hashes[700:])
    nearest = np.bitwise_count(hashes[:700, None] ^ hashes[700:]).min(axis=1)
    expected = {name: int(least) for name, least in zip(names, nearest, strict=False) if least <= NEAR}
    assert {near.name: near.distance for near in find_duplicates(half, rest).near} == expected


def test_a_band_that_all_share_is_searched_in_part_and_said(monkeypatch):
    monkeypatch.setattr(duplicates, "WINDOW", 10)
    rng = np.random.default_rng(0)
    crowd = np.unique(rng.integers(0, 2**40, size=500, dtype=np.uint64)) << np.uint64(2) | np.uint64(1)
    hashes = np.append(crowd, [crowd[7], 2**64 - 1]).astype(np.uint64)
    names = [str(number) for number in range(len(hashes))]
    found = find_duplicates(Fingerprints("train", names, names, hashes))
    assert Near(names[-2], "7", 0) in found.near
    assert found.partly_compared == len(hashes) - 1
    assert "501 of 502 train pictures have more than 10 similar ones" in found.describe()[-1]


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="2 names, 1 digests and 0 perceptual"):
        Fingerprints("train", ["a", "b"], ["x"], np.zeros(0, np.uint64))
