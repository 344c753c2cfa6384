#!/usr/bin/env bash
# Set up the environment and run all checks: lint, format, types, imports, option files, documentation site, tests.
# Arguments go to pytest: scripts/test.sh -k metrics
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
setup_env
ruff check .
ruff format --check .
mypy
lint-imports >/dev/null || lint-imports
python scripts/make_options.py --check
site=$(mktemp -d)
NO_MKDOCS_2_WARNING=1 mkdocs build --strict -q -d "$site"
rm -r "$site"
# Two processes: one keeps a single core busy on average, as many tests wait for others. -n 0 for a debugger.
# One thread each: threads of both that wait for each other by spinning would take the cores from one another.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
