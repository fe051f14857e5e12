# One positive a nucleus, and no suppression: the threshold of 1 keeps every box.
_base_ = "../tood/tood_r18_fpn_24e_nuclei.py"

model = dict(
    train_cfg=dict(assigner=dict(topk2=1)), test_cfg=dict(nms_pre=200, nms=dict(type="nms", iou_threshold=1.0))
)
