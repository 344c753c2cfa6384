"""Make a small data set for the quick start: `drsformer samples -o datasets/quickstart --lmdb`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from drsformer_arch.data.prepare.sample_data import write_samples


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python scripts/make_demo_data.py --out datasets/quickstart",
    )
    parser.add_argument("--out", type=Path, default=Path("datasets/quickstart"), help="folder to make (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of tiles and rain, 0 or more (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace demo data that is there already")
    arguments = parser.parse_args(argv)
    if arguments.seed < 0:
        parser.error("--seed must be 0 or more")
    try:
        samples, was_there = write_samples(arguments.out, arguments.seed, stores=True, overwrite=arguments.overwrite)
    except (OSError, ValueError) as error:
        print(f"make_demo_data: {error}", file=sys.stderr)
        return 1
    print(f"{samples.describe(arguments.out)}{'; already there' if was_there else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
