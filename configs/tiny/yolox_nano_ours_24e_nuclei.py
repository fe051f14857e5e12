# A level of stride 4 first; YOLOX's present geometry, contested points stay with those that chose them.
_base_ = "../yolox/yolox_nano_24e_nuclei.py"

model = dict(
    train_cfg=dict(assigner=dict(candidate_region="center", center_radius=1.5, conflict="selected", min_positives=1))
)
