#!/usr/bin/env bash
# Run the tests, after the set-up where it is missing; arguments go to pytest: bash tools/test.sh -k atss
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/tools/setup.sh"
cd "$root"
exec .venv/bin/python -m pytest "$@"
