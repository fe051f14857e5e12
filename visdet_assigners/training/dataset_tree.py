"""The data sets that a config nests in each other, walked in this one place.

A wrapper such as ``RepeatDataset`` or ``ConcatDataset`` holds other data sets, and so may one that nobody here knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from visdet_assigners.registry import scope_and_name

HOLDERS = ("dataset", "datasets")
"""Where mmengine's and mmdet's wrappers hold what they wrap."""
FILES = ("ann_file", "data_root", "data_prefix", "pipeline", *HOLDERS)
"""What tells the config of a data set from one of another thing."""
REPEATING = ("RepeatDataset", "ClassBalancedDataset")
"""Wrappers that show some pictures several times in an epoch."""

Place = tuple[str, Any]
"""A path in the config, and the config of the data set there."""


def phase_dataset(cfg: Config, phase: str) -> Any:
    """Return the config of the data set of ``'train'``, ``'val'`` or ``'test'``; None where the config has none."""
    return (cfg.get(f"{phase}_dataloader") or {}).get("dataset")


def held_datasets(dataset: Mapping[str, Any], path: str) -> list[Place]:
    """Return the data sets right inside a data set: none for one that reads files itself.

    Args:
        dataset: its config.
        path: its own, such as ``train_dataloader.dataset``.
    """
    return [place for key in dataset if key != "pipeline"
            for place in _found(dataset[key], f"{path}.{key}", key in HOLDERS)]  # fmt: skip


def all_datasets(dataset: Any, path: str) -> Iterator[Place]:
    """Yield a data set and all that are nested in it, wrappers first."""
    if isinstance(dataset, Mapping):
        yield path, dataset
        for where, held in held_datasets(dataset, path):
            yield from all_datasets(held, where)


def leaf_datasets(dataset: Any, path: str) -> Iterator[Place]:
    """Yield the data sets that hold no other one: those that read files."""
    for where, one in all_datasets(dataset, path):
        if not held_datasets(one, where):
            yield where, one


def repeating_datasets(dataset: Any, path: str) -> list[Place]:
    """Return the wrappers that show some pictures several times in an epoch."""
    return [(where, one) for where, one in all_datasets(dataset, path) if _repeats(one)]


def without_repeats(dataset: Any) -> Any:
    """Return the config of a data set whose pictures come once each: without `REPEATING` wrappers, however nested."""
    if isinstance(dataset, Mapping):
        if _repeats(dataset):
            return without_repeats(dataset["dataset"])
        kept = {key: dataset[key] if key == "pipeline" else without_repeats(dataset[key]) for key in dataset}
        return ConfigDict(kept) if isinstance(dataset, ConfigDict) else kept
    if isinstance(dataset, (list, tuple)):
        return type(dataset)(without_repeats(one) for one in dataset)
    return dataset


def _repeats(dataset: Mapping[str, Any]) -> bool:
    return scope_and_name(dataset.get("type"))[1] in REPEATING and isinstance(dataset.get("dataset"), Mapping)


def _found(value: Any, path: str, certain: bool) -> Iterator[Place]:
    """Yield the outermost data sets in a value of any kind; ``certain`` where a data set is what belongs there."""
    if isinstance(value, Mapping):
        signs = ["type" in value, any(key in value for key in FILES)]
        if any(signs) if certain else all(signs) or (signs[0] and held_datasets(value, path)):
            yield path, value
        elif "type" not in value:  # several by name
            for key in value:
                yield from _found(value[key], f"{path}.{key}", certain)
    elif isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            yield from _found(one, f"{path}.{index}", certain)
