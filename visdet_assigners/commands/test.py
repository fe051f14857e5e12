"""The command ``test``; `visdet_assigners.commands.parsers` says what it does."""

from __future__ import annotations

from collections.abc import Sequence

from visdet_assigners.commands import parsers
from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.errors import UserError
from visdet_assigners.training.config_check import check_config
from visdet_assigners.training.dataset_tree import leaf_datasets, phase_dataset
from visdet_assigners.training.datasets import guard_images
from visdet_assigners.training.running import build_runner, check_checkpoint, lost_processes


def apply_tta(cfg) -> None:
    """Wrap the model and its test pipeline for test-time augmentation: the config's own, else one horizontal flip."""
    datasets = [one for _, one in leaf_datasets(phase_dataset(cfg, "test"), "test")]
    if "tta_model" not in cfg:
        merge = {"nms": {"type": "nms", "iou_threshold": 0.5}, "max_per_img": 100}
        cfg.tta_model = {"type": "DetTTAModel", "tta_cfg": merge}
    if "tta_pipeline" not in cfg:
        flips = [{"type": "RandomFlip", "prob": 1.0}, {"type": "RandomFlip", "prob": 0.0}]
        keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")
        pack = [{"type": "PackDetInputs", "meta_keys": keys}]
        cfg.tta_pipeline = [*datasets[0].pipeline[:-1], {"type": "TestTimeAug", "transforms": [flips, pack]}]
    cfg.model = {**cfg.tta_model, "module": cfg.model}
    for dataset in datasets:
        dataset.pipeline = cfg.tta_pipeline
    guard_images(cfg, ["test"])


def main(argv: Sequence[str] | None = None) -> None:
    """Test as the command line says."""
    with user_errors():
        args = parsers.test().parse_args(argv)
        if args.out and not args.out.endswith((".pkl", ".pickle")):
            raise UserError(f"--out {args.out}: the predictions are a pickle file; give a name that ends in .pkl")
        cfg = load_config(args)
        check_checkpoint(args.checkpoint, "check the path, or train one with tools/train.py")
        check_config(cfg, ["test"])
        cfg.load_from = args.checkpoint
        if args.show or args.show_dir:
            from mmdet.engine.hooks.utils import trigger_visualization_hook

            cfg = trigger_visualization_hook(cfg, args)
        if args.tta:
            apply_tta(cfg)
        runner = build_runner(cfg)
        if args.out:
            from mmdet.evaluation import DumpDetResults

            runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
        with lost_processes():
            runner.test()
