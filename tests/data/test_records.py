"""Records give back every window of every kind of picture bit for bit, and know when they are damaged."""

import numpy as np
import pytest
from skimage import data

from drsformer_arch.data.store import records
from drsformer_arch.system.errors import UserError


def picture(rng: np.random.Generator, height: int, width: int, channels: int, dtype: type) -> np.ndarray:
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype=dtype, endpoint=True)


@pytest.mark.parametrize("encoding", records.ENCODINGS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_window_is_the_slice_of_the_picture(encoding, dtype, channels):
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (64, 64), (63, 65), (1, 200), (130, 97)):
        pixels = picture(rng, height, width, channels, dtype)
        record = records.pack(pixels, encoding)
        assert records.is_intact(record)
        assert records.read_record_header(record).shape == pixels.shape
        for _ in range(10):
            top, left = rng.integers(height), rng.integers(width)
            size = rng.integers(1, height - top + 1), rng.integers(1, width - left + 1)
            window = records.read_window(memoryview(record), top, left, *size)
            assert window.dtype == dtype
            assert np.array_equal(window, pixels[top : top + size[0], left : left + size[1]])


def test_a_photograph_is_smaller_than_its_png():
    photograph = data.astronaut()
    compressed, png = (len(records.pack(photograph, encoding)) for encoding in ("compressed", "png"))
    assert compressed < png < photograph.nbytes


@pytest.mark.parametrize("encoding", records.ENCODINGS)
def test_damage_is_found(encoding):
    rng = np.random.default_rng(1)
    record = records.pack(picture(rng, 70, 80, 3, np.uint8), encoding)
    for position in (*range(20), *rng.integers(20, len(record), 50)):
        damaged = bytearray(record)
        damaged[position] ^= 1 << rng.integers(8)
        assert not records.is_intact(bytes(damaged)), position
    for length in (0, 10, 20, 25, len(record) // 2, len(record) - 1):
        assert not records.is_intact(record[:length])
        with pytest.raises(UserError):
            records.read_window(record[:length], 0, 0, 70, 80)
