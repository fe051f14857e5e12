"""Get the assignments of a config's detector on the images of its data set, with the network or without it.

    dataset, model = build_dataset(cfg, "train"), build_model(cfg, "weights.pth")
    image, sample, records = assignments(model, dataset[0])

Assigners that look at priors alone need neither weights nor images: with ``blank_images(dataset)`` and
`visdet_assigners.observe.without_network` the same lines take milliseconds.
"""

from __future__ import annotations

import copy
import itertools
import random
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmdet
import numpy as np
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import TrackDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import load_checkpoint
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _BatchNorm

from visdet_assigners.errors import UserError
from visdet_assigners.observe.masks import matched_masks
from visdet_assigners.observe.records import AssignmentRecord
from visdet_assigners.observe.tap import assigners_by_place, image_of, record_assignments
from visdet_assigners.registry import scope_and_name, typed_nodes
from visdet_assigners.training.checkpoints import CheckpointError, guard_mmengine
from visdet_assigners.training.config_errors import explain, told
from visdet_assigners.training.dataset_tree import leaf_datasets, phase_dataset, repeating_datasets, without_repeats
from visdet_assigners.training.images import ImageError
from visdet_assigners.training.loading import annotation_loader, image_loader, loading_steps, loads


def check_detector(cfg: Config, phase: str) -> None:
    """Look for a model, and a data set of the phase, ``train`` or ``val``: parts of configs and trackers lack one.

    Raises:
        UserError: the config has none.
    """
    if not cfg.get("model"):
        raise UserError("the config has no model; give that of a detector, of which this one may be a part")
    if not (cfg.get(f"{phase}_dataloader") or {}).get("dataset"):
        raise UserError(f"the config has no {phase}_dataloader with a dataset; give the config of a detector that is "
                        "trained, or another --phase")  # fmt: skip


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Tell in one line what fails in the code that a config names, which is mended there or in the config.

    Raises:
        UserError: what failed and why; the error itself is its cause.
    """
    try:
        yield
    except (UserError, CheckpointError, ImageError):
        raise
    except Exception as error:
        if explain(error) is not None:  # has a line of its own
            raise
        raise UserError(f"{what}: {told(error)}") from error


def build_dataset(cfg: Config, phase: str) -> Any:
    """Build the data set of a phase, ``train`` or ``val``, each picture once, with boxes that fit its images.

    ``RepeatDataset`` and ``ClassBalancedDataset``, which repeat pictures, are left out; `repeats_left_out` says so.

    Raises:
        UserError: the config has no data set for it, or it can't be built.
    """
    config = without_repeats(copy.deepcopy(phase_dataset(cfg, phase)))
    if not isinstance(config, Mapping):
        raise UserError(f"the config has no {phase}_dataloader with a dataset; choose another --phase, or config")
    if phase == "val":
        taught = [
            step for _, one in leaf_datasets(phase_dataset(cfg, "train"), "") for _, step, _ in loading_steps(one)
        ]
        for _, leaf in leaf_datasets(config, phase):
            leaf["pipeline"] = annotations_first(leaf.get("pipeline") or [], *taught[:1])  # type: ignore[index]
    with one_line(f"the {phase}_dataloader.dataset of the config can't be built"):
        return DATASETS.build(config)


def repeats_left_out(cfg: Config, phase: str) -> list[str]:
    """Say of which wrappers of a phase's data set `build_dataset` takes each picture once."""
    return [f"{path} is a {scope_and_name(one['type'])[1]}, which repeats pictures; each is taken once here"
            for path, one in repeating_datasets(phase_dataset(cfg, phase), f"{phase}_dataloader.dataset")]  # fmt: skip


def annotations_first(pipeline: Sequence[Mapping], taught: Mapping | None = None) -> list[Mapping]:
    """Load annotations right after the image.

    Evaluation compares boxes in the original image, so mmdet's test pipelines load them after the image is resized.

    Args:
        pipeline: steps of a data set to evaluate on.
        taught: how the training loads annotations, for a pipeline that loads none, or loads less than a head needs.
    """
    loading = [step for step in pipeline if annotation_loader(step)]
    if not loading:
        loading = [taught or {"type": "mmdet.LoadAnnotations", "with_bbox": True}]
    elif taught is not None and not any(loads(step, "with_mask") for step in loading) and loads(taught, "with_mask"):
        loading = [{**loading[0], "with_mask": True}, *loading[1:]]
    others = [step for step in pipeline if not annotation_loader(step)]
    start = 1 + max((number for number, step in enumerate(others) if image_loader(step)), default=0)
    return [*others[:start], *loading, *others[start:]]


class BlankImage(BaseTransform):
    """An image without content, of the size that the annotations give; read from its file where they give none.

    Args:
        loader: reads the file.
    """

    def __init__(self, loader: BaseTransform) -> None:
        self.loader = loader

    def transform(self, results: dict) -> dict | None:
        """Add what ``LoadImageFromFile`` adds."""
        height, width = results.get("height"), results.get("width")
        if not height or not width:
            return self.loader.transform(results)
        height, width = round(height), round(width)  # some files have decimals
        results["img"] = np.zeros((height, width, 3), dtype=np.uint8)
        results["img_shape"] = results["ori_shape"] = (height, width)
        return results


def blank_images(dataset: Any) -> None:
    """Make a data set and those inside it read no images."""
    for inner in [getattr(dataset, "dataset", None), *getattr(dataset, "datasets", [])]:
        if inner is not None:
            blank_images(inner)
    steps = getattr(getattr(dataset, "pipeline", None), "transforms", [])
    if not isinstance(steps, list):  # a data set of data sets has a list of its own steps
        return
    steps[:] = [BlankImage(step) if isinstance(step, LoadImageFromFile) else step for step in steps]


def load_item(dataset: Any, index: int) -> Any:
    """Fetch an image as its pipeline makes it, random steps drawn from a seed of its own; None where it is dropped.

    Raises:
        UserError: the pipeline fails, or gives no images with objects on them.
        ImageError: the image can't be read.
    """
    random.seed(index)
    np.random.seed(index)
    torch.manual_seed(index)
    with one_line(f"the data set fails to give its image {index}"):
        item = dataset[index]
    if item is not None:
        sample_of(item)
    return item


def sample_of(item: Mapping[str, Any]) -> Any:
    """The data sample with the objects of an image; of several frames of a video, that of the key frame.

    Raises:
        UserError: there are several branches of images, or no objects.
    """
    sample = item.get("data_samples")
    if not isinstance(item.get("inputs"), torch.Tensor):
        raise UserError("the config feeds its model several branches of images; give the config of one detector")
    if isinstance(sample, TrackDataSample):
        if not sample.get("key_frames_inds"):
            raise UserError("the data set gives whole videos without a key frame; --phase train has one")
        sample = sample.get_key_frames()[0]
    if not hasattr(sample, "gt_instances"):
        raise UserError(f"the data set gives no objects but a {type(sample).__name__}; give the config of a detector")
    return sample


def objects_of(item: Mapping[str, Any]) -> Any:
    """The ground truths of an image, those that are learned."""
    return sample_of(item).gt_instances


def numbered_items(dataset: Any, numbers: Iterable[int]) -> Iterator[tuple[int, Any]]:
    """Yield the images of these numbers that the pipeline keeps, each with its number."""
    for number in numbers:
        item = load_item(dataset, number)
        if item is not None:
            yield number, item


def init_weights(model: Any) -> None:
    """Draw a model's weights as its parts say, without mmengine's line for each parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel("WARNING")
    model.init_weights()
    logger.setLevel(level)


def build_model(cfg: Config, checkpoint: str | None, epoch: int | None = None) -> Any:
    """Build the model in training mode, with the checkpoint's weights or random ones, as it is in that epoch.

    Args:
        cfg: the config.
        checkpoint: file or address; None for random weights.
        epoch: for heads that change their assigner while training; the checkpoint's if None, else 0.

    Raises:
        UserError: the model can't be built, or has no assigner.
        CheckpointError: the checkpoint is damaged, or could run code.
    """
    with one_line("the model of the config can't be built"):
        model = MODELS.build(_settings(cfg, checkpoint is None))
    if not assigners_by_place(model):
        heads = {type(part).__name__ for name, part in model.named_children() if name.endswith("head")}
        raise UserError(
            f"{type(model).__name__} has no assigner, so there is nothing to look at: targets are computed in "
            f"{' and '.join(sorted(heads)) or 'its code'}; choose another config"
        )
    meta = {}
    if checkpoint is None:
        for module in model.modules():
            if _downloads(getattr(module, "init_cfg", None)):
                module.init_cfg = None
        init_weights(model)
    else:
        guard_mmengine()
        meta = load_checkpoint(model, checkpoint, map_location="cpu").get("meta", {})
    epoch = meta.get("epoch", 0) if epoch is None else epoch
    hub = MessageHub.get_current_instance()  # where heads and augmentations look up how far training is
    hub.update_info("epoch", epoch)
    hub.update_info("iter", meta.get("iter", 0))
    if hasattr(model, "set_epoch"):
        model.set_epoch(epoch)
    model.train()
    for module in model.modules():  # one image is no batch to take statistics from
        if isinstance(module, _BatchNorm):
            module.eval()
    return model.to(get_device())


def _settings(cfg: Config, random_weights: bool) -> Any:
    """The config of the model, for one process and what is installed, with no weights to download for random ones."""
    settings = copy.deepcopy(cfg.model)
    for _, node in typed_nodes(settings, "model"):
        if node["type"] in ("SyncBN", "MMSyncBN"):  # the latter asks for the other processes when it is built
            node["type"] = "BN"
        if node.get("use_torchvision") and find_spec("torchvision") is None:
            node["use_torchvision"] = False  # mmcv has the same operator
        if random_weights:
            for key in {"teacher_ckpt", "pretrained"} & set(node):
                node[key] = False if isinstance(node[key], bool) else None
            if _downloads(node.get("init_cfg")):
                node["init_cfg"] = None
        teacher = node.get("teacher_config")
        shipped = Path(mmdet.__file__).parent / ".mim" / str(teacher)
        if isinstance(teacher, str) and not Path(teacher).is_file() and shipped.is_file():
            node["teacher_config"] = str(shipped)  # mmdet looks for it in its repository
    return settings


def _downloads(init_cfg: Any) -> bool:
    return re.search("Pretrained|checkpoint", str(init_cfg)) is not None


@torch.no_grad()
def assignments(model: Any, item: dict) -> tuple[NDArray[np.uint8], Any, list[AssignmentRecord]]:
    """Run one image through the training step.

    Returns:
        (H, W, 3) uint8 RGB image as the model saw it, its data sample, and what was assigned; of several frames of a
        video, those of the key frame.

    Raises:
        UserError: there are several branches of images or no objects, or the training step fails.
    """
    path = getattr(sample_of(item), "img_path", "the image")
    data = model.data_preprocessor(pseudo_collate([item]), training=True)
    pixels, sample, frame = image_of(data["inputs"][0], data["data_samples"][0])
    image = shown_image(model.data_preprocessor, pixels)
    fails = f"the training step of {type(model).__name__} fails on {path}"
    with matched_masks(model, frame) as masks, record_assignments(model) as records, one_line(fails):
        model.loss(data["inputs"], data["data_samples"])
    shown: list[AssignmentRecord] = []
    for record in records:
        if record.module in masks:
            shown.append(masks[record.module](record))
        elif record.image is None or record.image.index == frame:
            shown.append(record)
    return image, sample, shown


def uncalled(model: Any, called: Collection[str]) -> dict[str, str]:
    """The assigners of a model that are not among those called, by place, with class and place in words."""
    places = assigners_by_place(model)
    return {where: f"{type(assigner).__name__} ({where})" for where, assigner in places.items() if where not in called}


def check_calls(model: Any, called: Collection[str], objects: bool) -> None:
    """Check that there is something to show.

    Args:
        model: the detector.
        called: places of the assigners that were called.
        objects: whether there was an object in any image.

    Raises:
        UserError: no assigner was called.
    """
    if not called and not objects:
        raise UserError("no image has an object, so nothing is assigned; take more images, or another --phase")
    if not called:
        names = " and ".join(uncalled(model, ()).values())
        raise UserError(f"{type(model).__name__} never called {names}, so there is nothing to look at: its head "
                        "computes targets in another way; choose another config")  # fmt: skip


def picture_path(folder: Path, sample: Any, where: str, taken: Collection[Path]) -> Path:
    """Choose the file for the picture of an assigner, named by the image.

    Args:
        folder: for pictures.
        sample: the data sample of the image.
        where: place of the assigner.
        taken: files of other images, two of which may have the same name in different folders.
    """
    image = Path(getattr(sample, "img_path", None) or "image")
    stems = itertools.chain(
        [image.stem, f"{image.parent.name}_{image.stem}"], (f"{image.stem}_{number}" for number in itertools.count(2))
    )
    place = re.sub(r"[^\w. ]", "", where)
    paths = (folder / f"{stem}.{place}.png" for stem in stems)
    return next(path for path in paths if path not in taken)


def shown_image(preprocessor: Any, pixels: torch.Tensor) -> NDArray[np.uint8]:
    """Undo normalisation and channel order of a (3, H, W) input; boxes fit it as it is, augmented and padded."""
    if getattr(preprocessor, "_enable_normalize", False):
        mean, std = (values.view(-1, 1, 1) for values in (preprocessor.mean, preprocessor.std))
        pixels = pixels * std + mean
    image = pixels.clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    return image if getattr(preprocessor, "_channel_conversion", False) else image[..., ::-1]  # files are read as BGR
