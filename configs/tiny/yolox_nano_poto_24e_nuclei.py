# One positive a nucleus, and no suppression: the threshold of 1 keeps every box.
_base_ = "../yolox/yolox_nano_24e_nuclei.py"

model = dict(
    train_cfg=dict(
        assigner=dict(_delete_=True, type="visdet_assigners.POTOAssigner", score_form="probabilities", min_positives=1)
    ),
    test_cfg=dict(nms=dict(type="nms", iou_threshold=1.0)),
)
