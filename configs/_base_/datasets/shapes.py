# The drawn pictures of tools/make_shapes.py.
_base_ = "./small.py"

data_root = "{{$VISDET_SHAPES:data/shapes}}"
metainfo = dict(
    classes=("circle", "rectangle", "triangle", "star"),
    palette=[(220, 20, 60), (65, 105, 225), (255, 215, 0), (60, 179, 113)],
)

train_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, ann_file="annotations/train.json", data_prefix=dict(img="images/train/")
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, metainfo=metainfo, ann_file="annotations/val.json", data_prefix=dict(img="images/val/")
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + "/annotations/val.json")
test_evaluator = val_evaluator
