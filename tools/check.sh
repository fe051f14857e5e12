#!/usr/bin/env bash
# Check style, types and the direction of imports, after the set-up where it is missing; all are run, then it fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup.sh || exit
status=0
check() {
  echo "== $*"
  .venv/bin/"$@" || status=1
}
# Its cache would hide an import that sorts differently since a module came.
check ruff check --no-cache
check ruff format --check
check mypy
check lint-imports
exit $status
