#!/usr/bin/env bash
# Train with several processes: tools/dist_train.sh CONFIG GPUS [options of train.py]
# Without a GPU it starts GPUS processes on the CPU. NNODES, NODE_RANK, MASTER_ADDR and PORT set up several machines.
# Where one process ends, torchrun ends the others; where one hangs, they stop after env_cfg.dist_cfg.timeout seconds.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 CONFIG GPUS [options of train.py]" >&2; exit 2; }
"${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node-rank="${NODE_RANK:-0}" --nproc-per-node="$2" \
  --master-addr="${MASTER_ADDR:-127.0.0.1}" --master-port="${PORT:-29500}" \
  "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"
