_base_ = [
    "../_base_/models/crowddet_r18_fpn.py",
    "../_base_/datasets/bccd.py",
    "../_base_/schedules/schedule_12e.py",
    "../_base_/default_runtime.py",
]

# CrowdDet knows one class.  Red blood cells are the crowd: they lie side by side and one upon another.
metainfo = dict(classes=("RBC",), palette=[(220, 20, 60)])
train_dataloader = dict(dataset=dict(metainfo=metainfo))
val_dataloader = dict(dataset=dict(metainfo=metainfo))
test_dataloader = val_dataloader
