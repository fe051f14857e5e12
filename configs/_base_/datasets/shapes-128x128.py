# Plain shapes that are learned in a few hundred iterations; batches are drawn without end.  They are made by
#     python tools/make_shapes.py data/shapes-128x128 --size 128 128 --smallest 14 --plain --train 400 --val 100
_base_ = "./shapes.py"

train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (128, 128)
train_pipeline[3] = dict(type="RandomFlip", prob=0.5)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (128, 128)
train_dataloader = dict(
    sampler=dict(_delete_=True, type="InfiniteSampler", shuffle=True),
    batch_sampler=None,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
