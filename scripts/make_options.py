"""Write what follows from tables and classes: option files, options/schema.json and docs/options.md.

python scripts/make_options.py           write the files
python scripts/make_options.py --check   fail where a file differs from what would be written
"""

import argparse
import sys
from pathlib import Path

from drsformer_arch.compare.published import PUBLISHED
from drsformer_arch.options.recipes import option_files
from drsformer_arch.options.reference import page, schema_text

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file differs")
    args = parser.parse_args()
    files = {f"options/{name}": text for name, text in option_files(PUBLISHED).items()}
    files |= {"options/schema.json": schema_text(), "docs/options.md": page()}
    different = {
        path: text
        for path, text in ((ROOT / name, text) for name, text in files.items())
        if not path.exists() or path.read_text() != text
    }
    for path, text in different.items():
        if not args.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        print(("differs: " if args.check else "wrote ") + str(path.relative_to(ROOT)))
    return 1 if args.check and different else 0


if __name__ == "__main__":
    sys.exit(main())
