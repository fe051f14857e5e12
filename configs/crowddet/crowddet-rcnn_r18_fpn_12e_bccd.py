_base_ = [
    "../_base_/models/crowddet_r18_fpn.py",
    "../_base_/datasets/bccd.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

# CrowdDet knows one class.  Red blood cells are the crowd: they lie side by side and one upon another.
metainfo = dict(classes=("RBC",), palette=[(220, 20, 60)])
# mmdet's head fails on images without objects: it pairs each proposal with two boxes and finds none.
train_dataloader = dict(dataset=dict(metainfo=metainfo, filter_cfg=dict(filter_empty_gt=True)))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader

# The head gives its one class as a floating-point number, which CocoMetric refuses.
val_evaluator = dict(
    _delete_=True, type="VOCMetric", metric="mAP", eval_mode="area", iou_thrs=[0.5 + 0.05 * step for step in range(10)]
)
test_evaluator = val_evaluator
