#!/usr/bin/env bash
# Run the tests, after the set-up where it is missing, a process for each core; other arguments go to pytest:
#   bash tools/test.sh              # without those marked slow, and with fewer random scenes
#   bash tools/test.sh --all        # all, as continuous integration does
#   bash tools/test.sh -k atss
#   bash tools/test.sh -n 0 --pdb   # in one process, which a debugger needs
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bash "$root/tools/setup.sh"
cd "$root"
selection=(-m "not slow" --hypothesis-profile quick)
if [ "${1:-}" = --all ]; then
  selection=()
  shift
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # or the processes would wait for each other's threads
exec .venv/bin/python -m pytest --numprocesses auto --dist worksteal ${selection[@]+"${selection[@]}"} "$@"
