_base_ = [
    "../_base_/models/rpn_r18_fpn.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

# Not proposal_fast, which fails with numpy 1.24 and later (mmdet makes an array of lists of unequal length).
val_evaluator = dict(metric="proposal")
test_evaluator = val_evaluator
