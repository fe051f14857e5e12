#!/usr/bin/env bash
# Train a small ATSS detector with our assigner on drawn shapes, on the CPU, and show what it finds and what it learnt
# from; after the set-up where it is missing. Everything lands in work_dirs/demo, which a second run replaces.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null
bash tools/setup.sh

python=.venv/bin/python
config=configs/atss/atss_r18-w32_fpn_24e_shapes-160x120.py
out=work_dirs/demo
options=(--cfg-options data_root=$out/shapes)
export CUDA_VISIBLE_DEVICES= PYTHONWARNINGS=ignore
say() { echo "[demo] $*"; }

# Of mmengine's log only the progress: where the training is, how long it still takes, the loss; and each evaluation.
show_progress() {
  local line
  while IFS= read -r line; do
    if [[ $line =~ Epoch\(train\)\ *\[([0-9]+)\]\[\ *([0-9/]+)\].*eta:\ ([0-9:]+).*\ loss:\ ([0-9.]+) ]]; then
      echo "  epoch ${BASH_REMATCH[1]}, step ${BASH_REMATCH[2]}, ${BASH_REMATCH[3]} left, loss ${BASH_REMATCH[4]}"
    elif [[ $line =~ Epoch\((val|test)\).*bbox_mAP:\ ([0-9.]+).*bbox_mAP_50:\ ([0-9.]+) ]]; then
      echo "  evaluation: AP ${BASH_REMATCH[2]}, AP50 ${BASH_REMATCH[3]}"
    fi
  done
}

# run LOG COMMAND...: all that the command prints goes into LOG, its progress to the terminal too.
run() {
  "${@:2}" 2>&1 | tee "$1" | show_progress && return
  tail -20 "$1" >&2
  say "error: this step failed; its end stands above, all of it in $1" >&2
  exit 1
}

start=$SECONDS
for part in shapes training test detections assignments; do rm -rf "${out:?}/$part"; done
mkdir -p $out
say "1 of 4: drawing 400 pictures to train on and 50 to validate on"
$python tools/make_shapes.py $out/shapes --train 400 --val 50 --smallest 32
say "2 of 4: training 24 epochs (about 3 minutes on 2 cores)"
run $out/train.log $python tools/train.py $config --work-dir $out/training "${options[@]}"
checkpoint=$(cat $out/training/last_checkpoint)
say "3 of 4: testing it and drawing what it detects"
# An absolute folder is taken as it is; mmdet puts a relative one below a folder named after the time.
run $out/test.log $python tools/test.py $config "$checkpoint" --work-dir $out/test \
  --show-dir "$PWD/$out/detections" "${options[@]}"
say "4 of 4: drawing which anchors one picture's objects were assigned"
run $out/browse.log $python tools/browse_assignments.py $config "$checkpoint" --out-dir $out/assignments \
  --show-number 1 "${options[@]}"

metric() { sed -nE "s/.*coco\/$1: *([0-9.-]+).*/\1/p" $out/test.log | tail -1; }
echo
say "ATSS with the assigner of visdet_assigners: AP $(metric bbox_mAP), AP50 $(metric bbox_mAP_50) on 50 new pictures"
say "took $(((SECONDS - start) / 60)) min $(((SECONDS - start) % 60)) s; everything lies in $out:"
echo "  detections/    what is there (left) and what the detector finds (right)"
echo "  assignments/   which anchors of a picture learn which object"
echo "  training/      checkpoint and log; shapes/ the data set; *.log what the tools printed"
