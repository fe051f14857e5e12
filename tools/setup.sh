#!/usr/bin/env bash
# Make .venv with all that the demo, the tests and the checks need. Where that is done already, it ends at once.
#   PYTHON=python3.12 bash tools/setup.sh     # with another Python than the first suitable one on PATH
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

log=.venv/setup.log
say() { echo "[setup] $*"; }
fail() { echo "[setup] error: $*" >&2; exit 2; }

# What decides the installation; the folder too, because a virtual environment doesn't survive being moved.
fingerprint=$({ pwd; cat tools/setup.sh tools/constraints.txt tools/build_mmcv.py setup.py pyproject.toml; } | cksum)
is_ready() { [ -x .venv/bin/python ] && [ "$(cat .venv/ready 2>/dev/null)" = "$fingerprint" ]; }
is_ready && exit 0

# Two that start at once don't get in each other's way: the second waits, and then finds the work done.
if command -v flock >/dev/null; then
  exec 9<tools/setup.sh
  flock -n 9 || { say "another set-up is running here; waiting for it"; flock 9; }
  is_ready && exit 0
fi

suits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }
find_python() {
  if [ -n "${PYTHON:-}" ]; then
    suits "$PYTHON" || fail "PYTHON=$PYTHON is no Python 3.11 to 3.13; set it to one or leave it unset"
    python=$PYTHON
    return
  fi
  for python in python3.11 python3.12 python3.13 python3 python; do
    suits "$python" && return
  done
  fail "no Python 3.11 to 3.13 on PATH; install one, or name it: PYTHON=/path/to/python3.11 bash tools/setup.sh"
}

# step WHAT COMMAND...: one line on the terminal, the command's output in the log, its last errors where it fails.
step() {
  say "$1"
  "${@:2}" >>"$log" 2>&1 && return
  if tail -40 "$log" | grep -qE "NameResolution|NewConnection|ConnectTimeout|ProxyError|from versions: none"; then
    fail "pip can't reach the package index; check the network and the proxy, then run this again (log: $log)"
  fi
  fail "this step failed: $(grep -E "^(ERROR|error)|Error:" "$log" | tail -1); the whole log is $log"
}
pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input "$@"; }
install() { pip install --constraint tools/constraints.txt "$@"; }

# Of opencv's two packages mmdet's and mmcv's dependencies bring both; only the headless one runs without libGL.
mend_opencv() {
  .venv/bin/python -c "import cv2" 2>/dev/null && return
  local version
  version=$(pip list --format=freeze | sed -n 's/^opencv-python-headless==//p')
  install --force-reinstall --no-deps "opencv-python-headless==$version" && .venv/bin/python -c "import cv2"
}

start=$SECONDS
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  find_python
  rm -rf .venv
  say "making .venv with $("$python" --version)"
  "$python" -m venv .venv >/dev/null 2>&1 ||
    fail "$python can't make a virtual environment; Debian and Ubuntu have what it lacks in the package python3-venv"
fi
rm -f .venv/ready "$log"
step "installing torch (about a minute, longer where it is downloaded)" install torch
# mmcv's turn comes after this step: the index has it without operators only, as sources that pip would build in vain.
step "installing mmdet, mmengine and what mmcv needs (about a minute)" \
  install onedl-mmengine onedl-mmdetection numpy scipy opencv-python opencv-python-headless setuptools wheel ninja
step "checking that opencv imports" mend_opencv
.venv/bin/python tools/build_mmcv.py || fail "mmcv has no operators yet; see the lines above"
step "installing this package and its development tools (seconds)" install --no-build-isolation --editable ".[onedl,dev]"
echo "$fingerprint" >.venv/ready
say "done in $((SECONDS - start)) s; .venv is ready"
