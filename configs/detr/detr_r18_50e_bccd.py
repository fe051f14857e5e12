_base_ = [
    "../_base_/models/detr_r18.py",
    "../_base_/datasets/bccd.py",
    "../_base_/schedules/schedule_50e_detr.py",
    "../_base_/default_runtime.py",
]

model = dict(bbox_head=dict(num_classes=3))
# Batches of 4 instead of 8 give twice the steps for the same work.
train_dataloader = dict(batch_size=4)
