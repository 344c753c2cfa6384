"""Facts about the benchmark sets: numbers of pairs, versions in circulation, what their copies hold."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from drsformer_arch.system.errors import UserError, did_you_mean

Halves = Literal["", "clean_left", "rainy_left"]

_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class Benchmark(NamedTuple):
    """The facts that are known of a benchmark set."""

    title: str
    # published number of pairs, per split
    counts: Mapping[str, int] = _NOTHING
    # numbers of pairs of other versions, per split, with what the version may be
    versions: Mapping[str, Mapping[int, str]] = _NOTHING
    # which half is which, where some copies have both in one picture
    halves: Halves = ""
    # whether some copies come with text lists of pairs
    lists: bool = False
    # the sets that the test split is made of, by the names of their folders, with their possible numbers of pairs
    parts: Mapping[str, Collection[int]] = _NOTHING
    # names of folders that hold no pairs
    without_pairs: tuple[str, ...] = ()
    # how many rainy pictures share a clean one, in copies where they do
    rainy_per_clean: int = 1


BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {
        "rain200l": Benchmark("Rain200L", {"train": 1800, "test": 200}),
        "rain200h": Benchmark("Rain200H", {"train": 1800, "test": 200}),
        "did": Benchmark("DID-Data", {"train": 12000, "test": 1200}, halves="rainy_left"),
        "ddn": Benchmark(
            "DDN-Data",
            {"train": 12600, "test": 1400},
            {
                "train": {9100: "the split of the CVPR 2017 paper", 11200: "Rain14000"},
                "test": {4900: "the split of the CVPR 2017 paper", 2800: "Test2800 of Rain14000"},
            },
            rainy_per_clean=14,
        ),
        "spa": Benchmark(
            "SPA-Data",
            {"train": 638492, "test": 1000},
            {"train": {28500: "the whole pictures before they were cut"}},
            lists=True,
        ),
        "rain100l": Benchmark("Rain100L", {"train": 200, "test": 100}),
        "rain100h": Benchmark(
            "Rain100H",
            {"train": 1800, "test": 100},
            {"train": {1254: "the one without the 546 pairs whose scenes are in the test split, as PReNet uses it"}},
        ),
        "rain800": Benchmark(
            "Rain800",
            {"train": 700, "test": 100},
            {"test": {98: "the one that lacks two pairs"}},
            halves="clean_left",
            without_pairs=("test_nature",),  # real rain
        ),
        "rain13k": Benchmark(
            "Rain13K",
            {"train": 13712, "test": 4300},
            {"train": {13711: "the one that lacks one pair"}, "test": {4298: "the one with 98 pairs in Test100"}},
            parts={
                "Test100": (100, 98),
                "Rain100H": (100,),
                "Rain100L": (100,),
                "Test2800": (2800,),
                "Test1200": (1200,),
            },
        ),
        "pairs": Benchmark("own pairs"),
    }
)


def benchmark_named(dataset: str) -> Benchmark:
    """Return what is known of a set.

    Raises:
        UserError: an unknown set.
    """
    if dataset not in BENCHMARKS:
        raise UserError(f"unknown data set {dataset!r}{did_you_mean(dataset, BENCHMARKS)}")
    return BENCHMARKS[dataset]


def count_warning(dataset: str, split: str, count: int) -> str | None:
    """Return what to tell the user about the number of pairs in a split, or None where it is as published.

    Raises:
        UserError: an unknown set.
    """
    benchmark = benchmark_named(dataset)
    published = benchmark.counts.get(split)
    if published is None or published == count:
        return None
    version = benchmark.versions.get(split, {}).get(count)
    remark = f"it may be {version}" if version else "something is missing, or it is another version"
    return f"{benchmark.title} has {published:,} {split} pairs as published, this copy has {count:,}: {remark}"
