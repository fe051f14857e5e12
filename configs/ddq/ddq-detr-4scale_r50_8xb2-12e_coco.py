_base_ = "mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py"

# The type of the dense queries' assigner stands in mmdet's DDQDETRHead, where no config reaches it: the drop-in gives
# that name, and the others, our classes.
custom_imports = dict(imports=["visdet_assigners.dropin"], allow_failed_imports=False)
