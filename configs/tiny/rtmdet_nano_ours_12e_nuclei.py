# A level of stride 4 first; contested points stay with those that chose them.
_base_ = "../rtmdet/rtmdet_nano_12e_nuclei.py"

model = dict(train_cfg=dict(assigner=dict(conflict="selected", min_positives=1)))
