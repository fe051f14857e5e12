_base_ = "mmdet::reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco.py"

# RepPointsHead asks whether the type reads PointAssigner, without prefix: the drop-in gives that name, and the others,
# our classes.
custom_imports = dict(imports=["visdet_assigners.dropin"], allow_failed_imports=False)
