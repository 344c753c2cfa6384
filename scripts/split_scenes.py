"""Split data sets into training and validation by scene: `drsformer split-scenes` by its name in 0.1.0."""

import sys

from drsformer_arch.cli import main

if __name__ == "__main__":
    sys.exit(main(["split-scenes", *sys.argv[1:]]))
