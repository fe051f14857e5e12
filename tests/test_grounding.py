"""Grounding DINO, whose head masks the words that a text lacks by -inf: it trains with our assigner as with mmdet's."""

import copy
import re
from types import SimpleNamespace

import pytest
import torch
from mmdet.models.layers import MLP
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import nn

from detectors import batch, build, seed_everything, stock_config
from visdet_assigners import dropin
from visdet_assigners.observe import record_assignments
from visdet_assigners.registry import is_ours

TEXT = "cat . small dog . bird ."
BOXES = [[[8.0, 8.0, 60.0, 50.0], [70.0, 30.0, 120.0, 90.0], [30.0, 60.0, 42.0, 72.0]], [[20.0, 10.0, 110.0, 80.0]], []]
SIZE = 16


class Words(dict):
    """A text cut into words, as a tokenizer gives it."""

    def __init__(self, text: str) -> None:
        self.spans = [(found.start(), found.end()) for found in re.finditer(r"\w+|\.", text)]
        self.input_ids = torch.arange(len(self.spans) + 2)[None]  # one before and one behind

    def char_to_token(self, place: int) -> int | None:
        return next((1 + row for row, (start, end) in enumerate(self.spans) if start <= place < end), None)


class WordModel(nn.Module):
    """Stands in for BERT: a learnt vector for each place in the text."""

    pad_to_max, max_tokens = False, 256

    def __init__(self, **_) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, SIZE)
        self.language_backbone = SimpleNamespace(body=SimpleNamespace(language_dim=SIZE))

    def tokenizer(self, texts, **_) -> Words:
        return Words(texts[0])

    def forward(self, texts):
        ids = torch.cat([Words(text).input_ids for text in texts])
        mask = torch.ones_like(ids, dtype=torch.bool)
        return dict(
            embedded=self.embedding(ids), hidden=self.embedding(ids), text_token_mask=mask, position_ids=ids,
            masks=mask[:, None].expand(-1, ids.shape[1], -1),
        )  # fmt: skip


@pytest.fixture(autouse=True)
def registries():
    MODELS.register_module("WordModel", module=WordModel, force=True)
    yield
    MODELS.module_dict.pop("WordModel")


def small(config: str) -> ConfigDict:
    """The model of the config with few layers, a ResNet-18 and the model of words."""
    cfg = stock_config(config, queries=30)
    cfg.language_model = dict(type="WordModel")
    cfg.encoder.num_layers, cfg.decoder.num_layers, cfg.encoder.num_cp = 1, 2, 0
    if cfg.backbone.type != "ResNet":
        cfg.backbone = dict(type="ResNet", depth=18, num_stages=4, out_indices=(1, 2, 3), init_cfg=None)
        cfg.neck.in_channels = [128, 256, 512]
    return cfg


def mended(model: nn.Module) -> nn.Module:
    """With a decoder as wide as its queries' positions: onedl-mmdetection 3.5.1 builds the layer that reads them for
    half of it, so that its own Grounding DINO ends in an error of shapes."""
    decoder = model.decoder
    if decoder.ref_point_head.layers[0].in_features == 2 * decoder.embed_dims:
        torch.manual_seed(1)
        decoder.ref_point_head = MLP(4 * decoder.embed_dims, decoder.embed_dims, decoder.embed_dims, 2)
    return model


def trained(cfg: ConfigDict, steps: int = 2):
    """Losses of each step, and the assigners that were asked, with how many objects they matched."""
    model = mended(build(copy.deepcopy(cfg)))
    images, samples = batch(BOXES, num_classes=3)
    for sample in samples:
        sample.text, sample.custom_entities = TEXT, True
    seed_everything()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses, asked, matched = [], set(), 0
    for _ in range(steps):
        with record_assignments(model) as records:
            outputs = model.loss(images, copy.deepcopy(samples))
        asked |= {type(assigner) for assigner in [model.bbox_head.assigner]}
        matched += sum(int((record.gt_index >= 0).sum()) for record in records)
        total = sum(value for key, value in outputs.items() if "loss" in key)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append({key: value.detach() for key, value in outputs.items()})
    return losses, asked, matched


@pytest.mark.parametrize(
    "config",
    [
        "grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py",
        "mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py",
    ],
)
def test_it_trains_as_with_mmdets_assigner(config):
    cfg = small(config)
    dropin.restore()
    expected, theirs, matched = trained(cfg)
    dropin.enable()
    found, ours, mine = trained(cfg)
    assert not any(map(is_ours, theirs))
    assert all(map(is_ours, ours))
    assert mine == matched > 10
    for mmdets, own in zip(expected, found, strict=True):
        assert mmdets.keys() == own.keys()
        assert all(torch.equal(own[key], value) for key, value in mmdets.items())
        assert all(value.isfinite().all() for value in own.values())
