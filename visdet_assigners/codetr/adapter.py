"""The pyramid for the auxiliary heads, made of the encoder's memory (section 3.2 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, ModuleList
from torch import Tensor
from torch.nn.functional import interpolate


class MultiScaleAdapter(BaseModule):
    """Fold the memory back into maps, and add coarser and finer ones.

    A multi-scale encoder needs one coarser level, so that the heads get one level more than the encoder has.  An
    encoder of one level is brought up by bilinear interpolation and a 3x3 convolution, and down by 3x3 convolutions of
    stride 2, again and again.

    Args:
        embed_dims: width C of the transformer.
        coarser: how many levels are added behind the coarsest, each of half its size.
        finer: how many are put before the finest, each of twice its size.
        norm_cfg: normalisation after each convolution; with ``num_groups`` dividing C.
        init_cfg: as in mmengine.
    """

    def __init__(
        self,
        embed_dims: int,
        coarser: int = 1,
        finer: int = 0,
        norm_cfg: dict[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg or dict(type="Xavier", layer="Conv2d", distribution="uniform"))
        norm_cfg = norm_cfg or dict(type="GN", num_groups=32)

        def convolution(stride: int) -> ConvModule:
            return ConvModule(embed_dims, embed_dims, 3, stride, padding=1, norm_cfg=norm_cfg, act_cfg=None)

        self.down = ModuleList(convolution(2) for _ in range(coarser))
        self.up = ModuleList(convolution(1) for _ in range(finer))

    def forward(self, memory: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Return the pyramid, finest level first.

        Args:
            memory: (B, N, C), the levels of the encoder one after another.
            shapes: height and width of each level; the products sum to N.

        Returns:
            ``finer`` + L + ``coarser`` maps (B, C, h, w).
        """
        lengths = [height * width for height, width in shapes]
        maps = [
            part.transpose(1, 2).reshape(len(memory), -1, height, width)
            for part, (height, width) in zip(memory.split(lengths, dim=1), shapes)
        ]
        for convolution in self.up:
            maps.insert(0, convolution(interpolate(maps[0], scale_factor=2, mode="bilinear", align_corners=False)))
        for convolution in self.down:
            maps.append(convolution(maps[-1]))
        return maps
