_base_ = [
    "../_base_/models/rpn_r18_fpn.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

val_evaluator = dict(metric="proposal_fast")
test_evaluator = val_evaluator
