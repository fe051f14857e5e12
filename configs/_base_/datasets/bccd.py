# BCCD: photographs of blood smears, 205 to train, 87 to validate. configs/README.md says how to get it.
_base_ = "./small.py"

data_root = "{{$VISDET_BCCD:data/bccd}}"
metainfo = dict(classes=("RBC", "WBC", "Platelets"), palette=[(220, 20, 60), (65, 105, 225), (255, 215, 0)])

train_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, ann_file="annotations/train.json", data_prefix=dict(img="images/")
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, ann_file="annotations/val.json", data_prefix=dict(img="images/")
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + "/annotations/val.json")
test_evaluator = val_evaluator
