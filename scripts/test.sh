#!/usr/bin/env bash
# Set up the environment and run all checks: lint, format, types, option files, tests.
# Arguments go to pytest: scripts/test.sh -k metrics
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup_env.sh
setup_env
ruff check .
ruff format --check .
mypy
python scripts/make_options.py --check
pytest "$@"
