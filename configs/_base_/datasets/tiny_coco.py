# 50 + 50 pictures of COCO 2017 with all its classes and masks, in COCO's layout.
_base_ = "./small.py"

data_root = "{{$VISDET_TINY_COCO:data/tiny_coco}}"

train_dataloader = dict(
    dataset=dict(
        data_root=data_root, ann_file="annotations/instances_train2017.json", data_prefix=dict(img="train2017/")
    )
)
val_dataloader = dict(
    dataset=dict(data_root=data_root, ann_file="annotations/instances_val2017.json", data_prefix=dict(img="val2017/"))
)
test_dataloader = val_dataloader

val_evaluator = dict(ann_file=data_root + "/annotations/instances_val2017.json")
test_evaluator = val_evaluator
