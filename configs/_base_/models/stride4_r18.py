# For objects of few pixels: three stages of ResNet-18, and a pyramid that starts at stride 4.  Names for other configs
# to choose from; anchors of 8 to 16 pixels suit the first level.
fine_strides = [4, 8, 16]
fine_backbone = dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2))
fine_neck = dict(in_channels=[64, 128, 256], num_outs=3)
