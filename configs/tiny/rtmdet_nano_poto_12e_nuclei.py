# One positive a nucleus, and no suppression: the threshold of 1 keeps every box.
_base_ = "../rtmdet/rtmdet_nano_12e_nuclei.py"

model = dict(
    train_cfg=dict(assigner=dict(_delete_=True, type="visdet_assigners.POTOAssigner", min_positives=1)),
    test_cfg=dict(nms_pre=200, nms=dict(type="nms", iou_threshold=1.0)),
)
