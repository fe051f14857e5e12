"""Proposals of a file that is JSON, which the checks of the data ask for; mmdet reads pickles alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from mmdet.datasets.transforms import LoadProposals as LoadOfMMDet

from visdet_assigners.errors import UserError
from visdet_assigners.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadProposals(LoadOfMMDet):
    """mmdet's ``LoadProposals``, which also takes the lists that JSON has in place of arrays.

    The file has for each image, named with its folder as ``train2017/000000000009.jpg``, ``bboxes``, a list of
    ``[x1, y1, x2, y2]`` in pixels, which may be empty, and optionally ``scores``, a list of as many numbers.
    """

    def transform(self, results: dict) -> dict:
        """Add ``proposals`` (P, 4) and ``proposals_scores`` (P,), both float32.

        Raises:
            UserError: the lists are not numbers of these shapes.
        """
        proposals = results["proposals"]
        if isinstance(proposals, Mapping):
            try:
                results["proposals"] = {
                    name: np.asarray(proposals[name], dtype=np.float32).reshape(-1, *shape)
                    for name, shape in (("bboxes", (4,)), ("scores", ()))
                    if name in proposals
                }
            except (ValueError, TypeError) as error:
                raise UserError(f"the proposals of {results.get('img_path')} are no lists of four and of one number: "
                                f"{error}") from error  # fmt: skip
        return super().transform(results)
