# RFLA: anchors as large as what a location sees, and its two passes.
_base_ = "../faster_rcnn/faster-rcnn_r18_fpn_12e_nuclei.py"

model = dict(
    rpn_head=dict(
        anchor_generator=dict(
            _delete_=True,
            type="AnchorGenerator",
            base_sizes=[22.5, 45.5, 133.5],
            scales=[1.0],
            ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16],
        )
    ),
    train_cfg=dict(
        rpn=dict(assigner=dict(_delete_=True, type="visdet_assigners.HierarchicalAssigner", topk=3, more=1, ratio=0.9))
    ),
)
