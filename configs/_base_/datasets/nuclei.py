# Cell nuclei under a fluorescence microscope, 256x256: 230 pictures to train, 104 to validate; half of the nuclei have
# sides below 13 pixels, and a picture holds up to 101 of them. configs/README.md says how to get it.
_base_ = "./small.py"

data_root = "{{$VISDET_NUCLEI:data/nuclei}}"
metainfo = dict(classes=("nucleus",), palette=[(220, 20, 60)])

train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (256, 256)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (256, 256)

train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/train.json",
        data_prefix=dict(img="images/"),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file="annotations/val.json",
        data_prefix=dict(img="images/"),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader

# 200 detections of a picture count.  COCO's evaluation takes its mean AP from the best 100, whatever proposal_nums say;
# mmdet's, in processes, takes it from the largest of these numbers.
val_evaluator = dict(ann_file=data_root + "/annotations/val.json", proposal_nums=(1, 10, 200), use_mp_eval=True)
test_evaluator = val_evaluator
