"""`python -m drsformer_arch` is `drsformer`."""

import sys

from drsformer_arch.cli import main

if __name__ == "__main__":
    sys.exit(main())
