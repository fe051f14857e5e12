_base_ = [
    "../_base_/models/mask2former_r18.py",
    "../_base_/datasets/tiny_coco.py",
    "../_base_/schedules/schedule_24e.py",
    "../_base_/default_runtime.py",
]

train_pipeline = _base_.train_pipeline
train_pipeline[1].with_mask = True
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_evaluator = dict(metric=["bbox", "segm"])
test_evaluator = val_evaluator
