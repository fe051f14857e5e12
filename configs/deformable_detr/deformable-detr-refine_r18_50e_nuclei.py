_base_ = [
    "../_base_/models/deformable-detr_r18.py",
    "../_base_/datasets/nuclei.py",
    "../_base_/schedules/schedule_50e_detr.py",
    "../_base_/default_runtime.py",
]

# Twice as many queries: up to 101 nuclei are in a picture.
model = dict(num_queries=200, bbox_head=dict(num_classes=1), test_cfg=dict(max_per_img=200))
# Batches of 4 instead of 8 give twice the steps for the same work.
train_dataloader = dict(batch_size=4)
