# Sourced by the other scripts: makes .venv with known-good versions, or does nothing where it is up to date.
# PYTHON chooses the interpreter, VENV the folder.

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "error: no Python from 3.10 on found; install one and name it: PYTHON=/path/to/python3.13 $0" >&2
    return 1
}

setup_env() {
    local root python stamp
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    venv=${VENV:-$root/.venv}
    python=$(find_python) || return 1
    # Of pyproject.toml the part that says what to install, without the tools' rules.
    stamp=$(cat "$root/constraints.txt" <(sed '/^\[tool.ruff/,$d' "$root/pyproject.toml") "$root/scripts/setup_env.sh" \
        <("$python" -V; pwd) | cksum)
    if [ "$(cat "$venv/.stamp" 2>/dev/null)" != "$stamp" ]; then
        echo "Setting up $venv with $("$python" -V) (a few minutes the first time)"
        "$python" -m venv "$venv" || {
            echo "error: cannot create a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2
            return 1
        }
        # BasicSR by setup-training on every Python: pip alone would fetch torch once more to build it, and fails on 3.13.
        "$venv/bin/python" -m pip install -q --upgrade pip &&
            "$venv/bin/python" -m pip install -q -c "$root/constraints.txt" -e "$root" &&
            "$venv/bin/drsformer" setup-training -- -c "$root/constraints.txt" &&
            "$venv/bin/python" -m pip install -q -c "$root/constraints.txt" -e "$root[dev]" ||
            return 1
        echo "$stamp" >"$venv/.stamp"
    fi
    PATH="$venv/bin:$PATH"
}
