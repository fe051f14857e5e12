"""The options of every command, and what its ``--help`` says.

Imports nothing heavy, so that ``--help`` answers at once: torch and mmengine would take seconds.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from pathlib import Path

from visdet_assigners.commands.options import (
    ArgumentParser,
    ConfigOptions,
    add_config_arguments,
    add_runner_arguments,
)


def _described_by(function: Callable[[], ArgumentParser]) -> ArgumentParser:
    return ArgumentParser(description=inspect.getdoc(function), formatter_class=argparse.RawDescriptionHelpFormatter)


def report() -> ArgumentParser:
    """Report what a detector's assigners give to the objects of a data set: one HTML page, and its numbers as JSON.

        visdet-assigners report configs/atss/atss_r50_fpn_1x_coco.py

    For assigners that look at priors alone (MaxIoU on anchors, ATSS, ...) the annotations are enough: no weights and no
    images are read, but for the few pictures on the page.  Those that look at predictions (SimOTA, TaskAligned,
    Hungarian, and MaxIoU on proposals) need a checkpoint, and the network runs on each image.
    """
    parser = _described_by(report)
    add_config_arguments(parser)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file, for assigners that look at predictions")
    parser.add_argument("--out-dir", help="folder for report.html and report.json (default: work_dirs/CONFIG)")
    parser.add_argument("--phase", choices=["train", "val"], default="train", help="which data set (default: train)")
    parser.add_argument("--max-images", type=int, metavar="N", help="the first N images (default: all)")
    parser.add_argument("--pictures", type=int, default=6, metavar="N",
                        help="pictures for each assigner on the page, those with the most objects without a positive "
                        "(default: 6)")  # fmt: skip
    parser.add_argument("--epoch", type=int, help="for heads that change their assigner while training, as TOOD does "
                        "(default: the checkpoint's, else 0)")  # fmt: skip
    return parser


def browse() -> ArgumentParser:
    """Draw which priors or queries a detector's assigners give to each object, on the images of its data set.

    Each image goes through the model's own training step, without gradients, so that any config of mmdet works; each
    assigner gets a picture of its own, or only those that --assigner names.  Assigners that look at anchors alone are
    shown exactly, with or without a checkpoint; those that look at predictions (SimOTA, TaskAligned, Hungarian, and
    MaxIoU on proposals) need one.
    """
    parser = _described_by(browse)
    add_config_arguments(parser)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint file; without one the weights are random")
    parser.add_argument("--out-dir", help="folder for the pictures (default: work_dirs/CONFIG/assignments)")
    parser.add_argument("--phase", choices=["train", "val"], default="train", help="which data set (default: train)")
    parser.add_argument(
        "-n", "--show-number", type=int, default=10, help="how many images that have objects (default: 10)"
    )
    parser.add_argument("--assigner", metavar="PART", help="draw only the assigners whose name has this part, as "
                        "roi_head or bbox_assigner[1] (default: all)")  # fmt: skip
    parser.add_argument("--epoch", type=int, help="for heads that change their assigner while training, as TOOD does "
                        "(default: the checkpoint's, else 0)")  # fmt: skip
    parser.add_argument("--all-levels", action="store_true", help="also draw levels where nothing is positive")
    parser.add_argument("--panel-width", type=int, metavar="PIXELS", help="width of an image in the pictures")
    show = parser.add_mutually_exclusive_group()
    show.add_argument("--show", action="store_true", help="also show each picture in a window; space goes on")
    show.add_argument("--not-show", action="store_false", dest="show", help="only write the pictures (default)")
    return parser


def compare() -> ArgumentParser:
    """Compare two assigners: where they agree and differ on the same images, and, with --train, what they teach.

        visdet-assigners compare CONFIG_A CONFIG_B
        visdet-assigners compare CONFIG --to type=visdet_assigners.MaxIoUAssigner pos_iou_thr=.5 neg_iou_thr=.4

    With --to, both are asked about the same priors and predictions of one detector.  Two configs are compared prior by
    prior where their priors are the same, and object by object in any case.  With --train, each detector is also
    trained from the same seed.
    """
    parser = _described_by(compare)
    add_config_arguments(parser)
    parser.add_argument("config_b", nargs="?", help="the second config; or give --to")
    parser.add_argument("--to", nargs="+", action=ConfigOptions, metavar="KEY=VALUE",
                        help="the second assigner, in place of the config's: type=NAME and its options")  # fmt: skip
    parser.add_argument("--at", metavar="PATH", help="which assigner of the config --to replaces, such as "
                        "model.train_cfg.rpn.assigner; needed where it has several")  # fmt: skip
    parser.add_argument("--checkpoints", nargs="+", metavar="FILE", help="weights of the first and of the second; one "
                        "for both with --to")  # fmt: skip
    parser.add_argument("--out-dir", help="folder for pictures and comparison.json (default: work_dirs/CONFIG)")
    parser.add_argument("--phase", choices=["train", "val"], default="train", help="which data set (default: train)")
    parser.add_argument("--max-images", type=int, default=100, metavar="N", help="the first N images (default: 100)")
    parser.add_argument("--pictures", type=int, default=6, metavar="N",
                        help="pictures of the images with the most differences (default: 6)")  # fmt: skip
    parser.add_argument("--epoch", type=int, help="for heads that change their assigner while training, as TOOD does "
                        "(default: the checkpoint's, else 0)")  # fmt: skip
    parser.add_argument("--train", action="store_true", help="also train each detector, with the config's schedule")
    parser.add_argument("--seed", type=int, default=0, help="of both trainings (default: 0)")
    return parser


def conflicts() -> ArgumentParser:
    """Count the places where two heads disagree: one's positive is the other's background, or another object.

    The Co-DETR paper blames such conflicts for what goes wrong beyond two heads.  For heads whose assigners look at
    priors alone this needs no weights and no images, only annotations; others are left out.

        visdet-assigners conflicts configs/co_detr/co-deformable-detr-atss-rcnn_r18_12e_bccd.py
    """
    parser = _described_by(conflicts)
    add_config_arguments(parser)
    parser.add_argument("--max-images", type=int, default=200, metavar="N", help="the first N images (default: 200)")
    return parser


def measure_constants() -> ArgumentParser:
    """Measure the constants of overlap measures for small objects on the training set of a config.

        visdet-assigners measure-constants configs/atss/atss_r18_fpn_12e_nuclei.py

    Prints what to write into a config: the C of NWDOverlaps, which is the mean size of the objects after the config's
    own resizing, and for each head whose assigner looks at anchors the m and n of SimDOverlaps.  Nothing is changed.
    The annotations are enough: no weights and no images are read.
    """
    parser = _described_by(measure_constants)
    add_config_arguments(parser)
    parser.add_argument("--max-images", type=int, metavar="N", help="the first N images (default: all)")
    return parser


def check_data() -> ArgumentParser:
    """Check a config, the annotations that it trains and validates on, and on demand the pictures.

    Names what would stop a training, or make it wrong (exit status 1), and what mmdet leaves out without a word.

        visdet-assigners check-data configs/atss/atss_r50_fpn_1x_coco.py --images
    """
    parser = _described_by(check_data)
    add_config_arguments(parser)
    parser.add_argument("--images", action="store_true", help="also read each picture and compare its size")
    return parser


def train() -> ArgumentParser:
    """Train a detector: mmdet's options, and --assigners, which says whose assigners label the priors."""
    parser = _described_by(train)
    add_config_arguments(parser)
    add_runner_arguments(parser)
    parser.add_argument("--amp", action="store_true", help="train in mixed precision (needs a GPU)")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate with the batch size")
    parser.add_argument(
        "--bad-annotations",
        choices=["skip", "stop"],
        default="skip",
        help="what to do about annotations that mmdet leaves out (boxes without area, outside their image, of unknown "
        "categories): say how many and go on (default), or stop; what can't be used at all always stops",
    )
    parser.add_argument("--check-images", action="store_true", help="read the header of each image before the start")
    parser.add_argument(
        "--bad-images",
        choices=["skip", "stop"],
        default="stop",
        help="what to do about an image to train on that is damaged, cut off or too large: stop (default), or name it "
        "and take another; either way the path is told",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from this checkpoint; without one, from the latest in the work folder that is whole",
    )
    return parser


def test() -> ArgumentParser:
    """Test a detector: evaluate a checkpoint, and on demand save its predictions, show or draw them."""
    parser = _described_by(test)
    add_config_arguments(parser)
    parser.add_argument("checkpoint", help="checkpoint file")
    add_runner_arguments(parser)
    parser.add_argument("--out", metavar="FILE.pkl", help="write the predictions into this pickle file")
    parser.add_argument("--show", action="store_true", help="show the predictions in a window")
    parser.add_argument("--show-dir", help="draw the predictions into this folder, below WORK_DIR/TIMESTAMP")
    parser.add_argument("--wait-time", type=float, default=2, help="seconds that --show shows a picture (default: 2)")
    parser.add_argument("--tta", action="store_true", help="predict on flipped images too, and join the predictions")
    return parser


def summarize() -> ArgumentParser:
    """Put the evaluations of several trainings into one table, the mean over the seeds of each, and draw their curves.

    visdet-assigners summarize --run plain work_dirs/plain-0 work_dirs/plain-1 \\ --run co-detr work_dirs/co-0
    work_dirs/co-1 --out curves.png
    """
    parser = _described_by(summarize)
    parser.add_argument(
        "--run", nargs="+", action="append", required=True, metavar=("NAME", "DIR"),
        help="a name, and the work folder of each seed; may be repeated",
    )  # fmt: skip
    parser.add_argument("--metric", default="coco/bbox_mAP", help="what to compare (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=100, help="factor of the values (default: %(default)s)")
    parser.add_argument("--out", metavar="FILE.png", help="draw the curves into this file")
    parser.add_argument("--last", metavar="FILE.png", help="draw the last evaluation of each seed into this file")
    return parser


def strip_codetr() -> ArgumentParser:
    """Take the auxiliary modules out of a Co-DETR checkpoint: what is left loads into mmdet's plain detector.

    The plain detector then predicts the same, to the bit.  Weights, averaged weights (EMA) and meta data are kept; the
    state of the optimiser is not, so training can't be resumed from the result.

        visdet-assigners strip-codetr work_dirs/co-deformable-detr-atss_r18_bccd/epoch_12.pth
    """
    parser = _described_by(strip_codetr)
    parser.add_argument("checkpoint", help="checkpoint of a collaborative detector")
    parser.add_argument("--out", metavar="FILE.pth", help="where to write (default: CHECKPOINT_plain)")
    parser.add_argument("--config", help="also turn this config into the plain detector's, beside the checkpoint")
    return parser


def make_shapes() -> ArgumentParser:
    """Draw a small detection data set of coloured shapes, in COCO format.

    Circles, rectangles, triangles and stars of 8 pixels (or ``--smallest``) to nearly half the picture lie on an
    uneven, noisy background.  They overlap; later ones cover earlier ones.  Masks and boxes are those of what can be
    seen, as in COCO: the box is tight around the visible mask.  Some pictures hold a crowd (many small shapes of one
    class under one ``iscrowd`` region), some hold nothing.  With ``--plain`` there are at most five shapes, each class
    has its colour, and there are no stripes, lines or crowds: a detector learns them in a few hundred iterations.  With
    ``--rotated`` masks are polygons, the smallest rotated boxes around what can be seen, and there are no crowds:
    mmrotate reads rotated boxes from such files by ``CocoDataset`` and ``ConvertMask2BoxType``.  The same arguments
    give the same bytes, and picture ``i`` of a split depends on the sizes, the seed, the flags and ``i`` alone.

        visdet-assigners make-shapes data/shapes

    writes ``images/{train,val}/*.jpg`` and ``annotations/{train,val}.json`` below the folder; files of these names are
    replaced, others are left alone.
    """
    parser = _described_by(make_shapes)
    parser.add_argument("out_dir", type=Path, help="folder to write to")
    parser.add_argument("--train", type=int, default=200, help="pictures to train on (default: %(default)s)")
    parser.add_argument("--val", type=int, default=50, help="pictures to validate on (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 240), metavar=("W", "H"), help="pixels (320 240)")
    parser.add_argument(
        "--smallest", type=float, default=8, metavar="PIXELS", help="size of the smallest shape (default: %(default)s)"
    )
    parser.add_argument("--plain", action="store_true", help="few shapes, one colour for each class, nothing else")
    parser.add_argument("--rotated", action="store_true", help="rotated boxes as polygons, without crowds")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other pictures (default: %(default)s)")
    return parser


def check_zoo() -> ArgumentParser:
    """Check every assigner of mmdet's configs: with the drop-in on it must be ours, and decide as mmdet's own does.

        visdet-assigners check-zoo
        visdet-assigners check-zoo --real data/coco/annotations/instances_val2017.json
        visdet-assigners check-zoo --only tood/tood_r50_fpn_1x_coco.py
        visdet-assigners check-zoo --package mmrotate

    Walks all configs that come with mmdet, builds every assigner that they name, wherever in the config, once as mmdet
    does and once with ``visdet_assigners.dropin``, and gives both the same scenes.  What must be equal: ``gt_inds``,
    ``labels``, ``max_overlaps`` at positives (everywhere for the IoU family), and what heads read besides.  Equal
    settings are compared once and counted for each config.  Prints a table; exits with 1 on the first difference, with
    a command that shows it.

    With --package the configs of another package are walked, on scenes of its boxes: mmrotate's, rotated.
    """
    parser = _described_by(check_zoo)
    parser.add_argument("--package", default="mmdet", metavar="NAME",
                        help="whose configs: mmdet, or another package, as mmrotate (default: mmdet)")  # fmt: skip
    parser.add_argument("--configs", type=Path, metavar="DIR", help="default: those within the package")
    parser.add_argument("--only", nargs="+", default=[], metavar="CONFIG",
                        help="these alone, names or patterns: tood/tood_r50_fpn_1x_coco.py 'detr/*'")  # fmt: skip
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every N-th config alone")
    parser.add_argument("--drawn", type=int, default=11, metavar="N", help="how many drawn scenes, of 33 (default: 11)")
    parser.add_argument("--real", metavar="ANNOTATIONS",
                        help="also the boxes of a data set: its annotations in COCO's format")  # fmt: skip
    parser.add_argument("--images", type=int, default=20, metavar="N",
                        help="how many images of --real, from the emptiest to the fullest (default: 20)")  # fmt: skip
    return parser


def compare_losses() -> ArgumentParser:
    """Train twice from the same seed, with mmdet's assigners and with ours, and compare every loss to the last bit.

        visdet-assigners compare-losses configs/atss/atss_r18_fpn_12e_bccd.py --iterations 50

    Prints the losses at which the two agree or first differ; exits with 1 where they differ.  Nothing is kept.
    """
    parser = _described_by(compare_losses)
    add_config_arguments(parser, assigners=False)
    parser.add_argument("--iterations", type=int, default=50, help="how many to compare (default: 50)")
    return parser


def benchmark() -> ArgumentParser:
    """Measure mmdet's assigners and ours side by side: operators, waits for a device, memory, time.

        visdet-assigners benchmark                                   # every scene, 7, 50 and 300 objects
        visdet-assigners benchmark --scenes RPN YOLOX --objects 300
        visdet-assigners benchmark --config mmdet::atss/atss_r50_fpn_1x_coco.py
        visdet-assigners benchmark --real data/coco/annotations/instances_val2017.json
        visdet-assigners benchmark --scenes RPN --growth growth.png  # ours alone up to 10,000 objects
        visdet-assigners benchmark --iteration mmdet::retinanet/retinanet_r18_fpn_1x_coco.py --objects 300

    Both run in one process, in turns, on the same inputs, and must decide the same.  Operators and waits are counted as
    a device would see them; they don't depend on the machine, memory and time do.
    """
    parser = _described_by(benchmark)
    parser.add_argument("--scenes", nargs="+", metavar="SCENE",
                        help="some of them, as RPN YOLOX; a wrong name lists all (default: all)")  # fmt: skip
    parser.add_argument("--config", help="take the assigners of this config instead; mmdet::PATH for one of mmdet's")
    parser.add_argument("--objects", nargs="+", type=int, default=[7, 50, 300], metavar="M", help="how many objects")
    parser.add_argument("--real", metavar="FILE", help="take the boxes of a file in COCO's format instead")
    parser.add_argument("--images", type=int, default=3, help="about how many images of it (default: 3)")
    parser.add_argument("--rounds", type=int, default=7, help="how often each call is timed (default: 7)")
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:1")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--iteration", metavar="CONFIG",
                        help="time whole training iterations of this detector instead, with the largest --objects, "
                        "on a random image of 800 x 1333; mmdet::PATH for one of mmdet's")  # fmt: skip
    parser.add_argument("--growth", metavar="PNG",
                        help="draw time and memory for 1 to 10,000 objects, mmdet's as far as "
                        "memory is likely to do")  # fmt: skip
    return parser
