"""Perceptual hashes: what a picture looks like, in so few bits that millions can be compared.

Both hashes here are "pHash" (C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010):
the picture is reduced to 32 x 32 gray values, and each of its lowest cosine frequencies gives one bit. There are two,
because two questions are asked, and because files hold the answers to both:

`perceptual_hash` recognises a photograph that was saved again, in 64 bits, so that all pictures of a data set fit into
memory and into manifests: of 63 frequencies, whether each lies above their median. All have the same number of ones, so
distances (number of different bits) are even. `NEAR` was measured on 548 photographs, most of them clean ones of
Rain100L, Rain200H and Rain800. Saved as JPEG of quality 20 or better, resized to between a quarter and 1.5, or made
brighter or darker by a tenth, at least 98.5 % stay within 4 bits of the original; in gray 96 % do, and with 4 pixels
cut off on each side 93 %. All 69 pictures of Rain100L that are also in Rain800 were found, with no false pair among the
whole pictures. In 8.6e8 pairs of square cuts of 96 to 256 pixels from different scenes there was 1 false one; all
others were skies with something in a corner, which get no hash now. Another part of a scene, or a mirrored picture, is
not found.

`scene_hash` also recognises a photograph that was turned, mirrored or cut, in 143 bits: the signs of the lowest 12 x 12
frequencies, whichever of 8 ways the picture lies. Measured on 164 pictures of Rain100L, 20 of Rain200H and 344 of
Rain800: 237 pairs differ in at most 2 bits, all others in 43 or more (`SCENE_NEAR` lies between); matching of local
features found the 237 and no other copy. Of changed copies these are found, in per cent: 100 for JPEG of quality 20,
resizing to between a quarter and 1.5, gamma 0.7 or 1.4, 1 degree of rotation, 3 % cut off at each side; 99 for 5 % cut
off at one side, 72 for 5 % at each.
"""

import hashlib
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from drsformer_arch.images.pictures import Picture

NEAR = 4  # different bits of the perceptual hashes of one photograph, at most
SCENE_FREQUENCIES = 12  # on each axis
SCENE_BITS = SCENE_FREQUENCIES**2 - 1  # without the first one, the mean brightness
SCENE_NEAR = 36  # different bits of the scene hashes of one photograph, at most

_SIDE = 32  # of the reduced picture
SCENE_METHOD = "signs of the lowest 12x12 cosine frequencies of the gray picture at 32x32"  # in manifests
_STEP = 4.0  # levels of 255 between neighbours of the reduced picture that count as content
_CONTENT = 0.25  # of the reduced picture must have such neighbours
_STABLE = 4  # corner of frequencies whose signs hardly ever differ between copies: in 97 % not at JPEG of quality 50
HALF_TOKEN = 6  # hexadecimal digits of each half of a token

Bits = npt.NDArray[np.bool_]


def perceptual_hash(picture: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> int:
    """Hash what a picture looks like into 64 bits; two views of one photograph differ in few.

    Args:
        picture: (H, W) or (H, W, C), uint8 in [0, 255] or uint16 in [0, 65535], channels in any order; of more than
            three the first three count.

    Returns:
        the hash, its lowest bit set; or 0, "no hash", where at least three quarters of the picture are flat (an empty
        sky, night, a single colour): what little is in such a picture does not tell it from others.

    Raises:
        ValueError: another shape or type.
    """
    if picture.dtype not in (np.uint8, np.uint16) or picture.ndim not in (2, 3) or picture.size == 0:
        raise ValueError(f"a picture is (H, W) or (H, W, C) of uint8 or uint16, not {picture.shape} of {picture.dtype}")
    channels = picture.reshape(*picture.shape[:2], -1)[:, :, :3]
    deep = picture.dtype == np.uint16  # 257 * v, the 16-bit form of v, becomes v again
    channels = np.ascontiguousarray(channels >> 8 if deep else channels, dtype=np.uint8)
    reduced = cv2.resize(channels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).reshape(_SIDE, _SIDE, -1)
    # A plain mean, so that RGB and BGR give the same hash.
    gray = reduced.mean(axis=2, dtype=np.float32)
    steps = np.abs(np.diff(gray, axis=0))[:, :-1] + np.abs(np.diff(gray, axis=1))[:-1]
    if np.mean(steps > _STEP) < _CONTENT:
        return 0
    frequencies = cv2.dct(gray)[:8, :8].ravel()[1:]  # without the first one, the mean brightness
    bits = np.append(frequencies > np.median(frequencies), True)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class SceneHash(NamedTuple):
    """The look of a photograph, whichever of 8 ways it is turned and mirrored.

    Attributes:
        digits: hexadecimal, of the orientation for which they are least.
        orientations: (8, `SCENE_BITS`), the first as the picture lies.
    """

    digits: str
    orientations: Bits

    def token(self) -> str:
        """Return hexadecimal digits as if random, the first half of them the same for nearly all copies."""
        side = SCENE_FREQUENCIES
        corner = np.pad(self.orientations, ((0, 0), (1, 0))).reshape(8, side, side)[:, :_STABLE, :_STABLE]
        halves = (_least_digits(corner), self.digits)
        return "".join(hashlib.sha256(half.encode()).hexdigest()[:HALF_TOKEN] for half in halves)

    def is_near(self, other: "SceneHash") -> bool:
        """Tell whether both are of copies of one photograph."""
        return int(np.count_nonzero(self.orientations[0] ^ other.orientations, axis=1).min()) <= SCENE_NEAR


def scene_hash(picture: Picture) -> SceneHash:
    """Hash what a picture looks like, whichever way it lies.

    Args:
        picture: (H, W, C) of any depth, channels in any order.
    """
    gray = picture.mean(axis=2, dtype=np.float32)
    reduced = cv2.resize(gray, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    orientations = _orientations(cv2.dct(reduced)[:SCENE_FREQUENCIES, :SCENE_FREQUENCIES] > 0)
    return SceneHash(_least_digits(orientations), orientations)


def parse_scene_hash(digits: str) -> SceneHash:
    """Make a hash of what a manifest holds.

    Raises:
        ValueError: it is no hash, or of another length.
    """
    content = bytes.fromhex(digits)
    if len(content) != -(-SCENE_BITS // 8):
        raise ValueError(f"a hash has {-(-SCENE_BITS // 8)} bytes, this one {len(content)}")
    signs = np.unpackbits(np.frombuffer(content, np.uint8), count=SCENE_BITS) > 0
    corner = np.insert(signs, 0, False).reshape(SCENE_FREQUENCIES, SCENE_FREQUENCIES)
    return SceneHash(digits, _orientations(corner))


def _orientations(corner: Bits) -> Bits:
    """Turn and mirror (F, F) signs into (8, F * F - 1): mirroring turns those of odd frequencies."""
    odd = np.arange(SCENE_FREQUENCIES) % 2 == 1
    mirrored = [corner, corner ^ odd, corner ^ odd[:, None], corner ^ odd ^ odd[:, None]]
    return np.stack([turned for signs in mirrored for turned in (signs, signs.T)]).reshape(8, -1)[:, 1:]


def _least_digits(orientations: Bits) -> str:
    return min(np.packbits(signs).tobytes().hex() for signs in orientations)
