"""The command-line tools: options, data roots, whose assigners, and one line for every mistake of the user.

A test for each mistake, hence the length.
"""

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmdet.models.task_modules.assigners import MaxIoUAssigner as MMDetMaxIoU
from mmdet.registry import TASK_UTILS as MMDET
from mmengine.config import Config
from mmengine.registry import HOOKS, DefaultScope

from toolbox import ROOT, load_tool
from visdet_assigners import ATSSAssigner, registry
from visdet_assigners.commands.config import load_config
from visdet_assigners.commands.errors import user_errors
from visdet_assigners.commands.options import ArgumentParser, add_config_arguments, add_runner_arguments
from visdet_assigners.errors import UserError
from visdet_assigners.training.config_assigners import apply_assigners, check_assigners
from visdet_assigners.training.config_check import check_config
from visdet_assigners.training.config_errors import told
from visdet_assigners.training.running import checkpoint_to_resume, load_checkpoint

SHAPES_CONFIG = str(ROOT / "configs" / "atss" / "atss_r18_fpn_12e_shapes.py")
ASSIGNER = "model.train_cfg.assigner"


train, test = load_tool("train"), load_tool("test")


@pytest.fixture(autouse=True)
def as_found(monkeypatch, tmp_path):
    """Each test starts in an empty folder without data roots in its environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("SHAPES", "BCCD", "COCO"):
        monkeypatch.delenv(f"VISDET_{name}", raising=False)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("data") / "shapes"
    load_tool("make_shapes").main([str(folder), "--train", "4", "--val", "4", "--size", "160", "120"])
    return str(folder)


def parse(*argv: str):
    parser = ArgumentParser()
    add_config_arguments(parser)
    add_runner_arguments(parser)
    return parser.parse_args(list(argv))


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


# ------------------------------------------------------------------------------------------------- mistakes of users

MISTAKES = [
    # (options after the config, words that must stand in the line)
    ([], ["data root data/shapes", "train_dataloader.dataset", "--cfg-options data_root="]),
    (["DATA", "train_dataloader.dataset.ann_file=foo.json"], ["annotation file", "foo.json"]),
    (["DATA", "train_dataloader.dataset.data_prefix.img=foo"], ["image folder", "foo"]),
    (["DATA", "val_evaluator.ann_file=foo.json"], ["annotation file foo.json of val_evaluator"]),
    (["DATA", f"{ASSIGNER}.type=visdet_assigners.ATSSAssinger"], [ASSIGNER, "did you mean visdet_assigners.ATSSAss"]),
    (["DATA", f"{ASSIGNER}.type=MaxIouAssigner"], [ASSIGNER, "did you mean MaxIoUAssigner"]),
    (["DATA", f"{ASSIGNER}.type=Foo"], ["there is no Foo", "custom_imports"]),
    (["DATA", f"{ASSIGNER}.topkk=3"], ["ATSSAssigner", "'topkk'", "its options are topk"]),
    (["DATA", f"{ASSIGNER}.topk=-1"], [ASSIGNER, "topk is -1"]),
    (["DATA", f"{ASSIGNER}.iou_calculator.type=Foo"], [f"{ASSIGNER}.iou_calculator", "there is no Foo"]),
    (["DATA", "model.backbone.depth.foo=1"], ["--cfg-options", "depth"]),
    (["--cfg-options", "data_root"], ["KEY=VALUE", "'data_root'"]),
    (["--cfg-options", "a=[1,2"], ["brackets", "a=[1,2"]),
    (["DATA", "--resume", "foo.pth"], ["checkpoint foo.pth"]),
    (["DATA", "load_from=foo.pth"], ["checkpoint foo.pth"]),
    (["--auto-scale-lr", "--cfg-options", "auto_scale_lr=None"], ["--auto-scale-lr"]),
    (["--assigners", "ours"], ["--assigners", "'ours'"]),
    (["--foo"], ["unrecognized arguments: --foo"]),
]


def one_error_line(run, capsys) -> str:
    """Run, and return the line on stderr; anything but exit status 2 and one line there fails."""
    with pytest.raises(SystemExit) as exit_:
        run()
    assert exit_.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1, errors
    assert "error: " in errors[0]
    return errors[0]


@pytest.mark.parametrize(("options", "words"), MISTAKES, ids=[" ".join(o[-1:]) or "no data" for o, _ in MISTAKES])
def test_train_tells_a_mistake_in_one_line(options, words, shapes, capsys):
    if options[:1] == ["DATA"]:
        options = ["--cfg-options", f"data_root={shapes}", *options[1:]]
    line = one_error_line(lambda: train.main([SHAPES_CONFIG, "--work-dir", "out", *options]), capsys)
    for word in words:
        assert word in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["config file", "doesn't exist"]),
        ("x = (", ["SyntaxError"]),
        ("x = foo", ["NameError", "foo"]),
        ("_base_ = 'foo.py'", ["can't read the config", "foo.py"]),
        ("custom_imports = dict(imports=['no_such_module'])", ["no_such_module", "PYTHONPATH"]),
    ],
)
def test_config_that_cannot_be_read(text, words, tmp_path, capsys):
    path = tmp_path / "config.py"
    if text is not None:
        write(path, text)
    line = one_error_line(lambda: train.main([str(path)]), capsys)
    assert str(path) in line
    for word in words:
        assert word in line


def test_mmcv_without_operators(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mmcv._ext", None)
    line = one_error_line(lambda: train.main([SHAPES_CONFIG]), capsys)
    assert "mmcv's compiled operators" in line
    assert "tools/build_mmcv.py" in line


def test_mmdet_is_missing(monkeypatch, capsys):
    found = "visdet_assigners.commands.config.find_spec"
    monkeypatch.setattr(found, lambda name: None if name == "mmdet" else object())
    assert "tools/setup.sh" in one_error_line(lambda: train.main([SHAPES_CONFIG]), capsys)


def test_mixed_precision_without_a_gpu(shapes, capsys, monkeypatch):
    monkeypatch.setattr(train, "get_device", lambda: "cpu")
    options = ["--amp", "--cfg-options", f"data_root={shapes}"]
    assert "--amp needs a GPU" in one_error_line(lambda: train.main([SHAPES_CONFIG, *options]), capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["foo.pth"], ["checkpoint foo.pth doesn't exist", "tools/train.py"]),
        (["foo.pth", "--out", "foo.json"], ["--out foo.json", ".pkl"]),
        ([], ["checkpoint"]),
    ],
)
def test_test_tells_a_mistake_in_one_line(arguments, words, capsys):
    line = one_error_line(lambda: test.main([SHAPES_CONFIG, *arguments]), capsys)
    for word in words:
        assert word in line


def test_missing_test_data(tmp_path, capsys):
    checkpoint = str(tmp_path / "model.pth")
    torch.save({}, checkpoint)
    assert "test_dataloader" in one_error_line(lambda: test.main([SHAPES_CONFIG, checkpoint]), capsys)


def test_a_process_of_its_own_exits_with_status_2_and_no_traceback(tmp_path):
    command = [sys.executable, str(ROOT / "tools" / "train.py"), "nowhere.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "train.py: error: the config file nowhere.py doesn't exist; check the path\n"
    assert not done.stdout


def test_unknown_type_of_any_registry_is_the_users_mistake(capsys):
    def run():
        with user_errors():
            HOOKS.build({"type": "NoSuchHook"})

    line = one_error_line(run, capsys)
    assert "the type NoSuchHook" in line
    assert ":hook registry" in line


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'timm.x'", name="timm.x"), "pip install timm"),
        (ImportError('Please run "pip install instaboostfast" first'), 'Please run "pip install instaboostfast" first'),
        (
            RuntimeError("lap is not installed, \n    please install it by: pip install lap"),
            "lap is not installed, please",
        ),
    ],
)
def test_a_missing_package_is_told_in_one_line(error, words, capsys):
    def run():
        with user_errors():
            raise error

    assert words in one_error_line(run, capsys)


def test_the_traceback_behind_a_line_is_there_for_whoever_asks(monkeypatch, capsys):
    def head():
        raise IndexError("no such level")

    def run():
        with user_errors():
            try:
                head()
            except IndexError as error:
                raise UserError(f"the training step fails: {told(error)}") from error

    line = one_error_line(run, capsys)
    assert "the training step fails: IndexError: no such level (tests/tools/test_cli.py, line " in line
    assert "VISDET_TRACEBACK=1" in line
    monkeypatch.setenv("VISDET_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        run()
    whole = capsys.readouterr().err
    assert "Traceback" in whole
    assert "in head\n" in whole
    assert whole.splitlines()[-1] == line


def test_an_operator_that_a_cpu_lacks_is_named():
    error = RuntimeError("carafe_forward_impl: implementation for device cpu not found.\n")
    assert told(error) == "mmcv has no carafe for the device cpu; run this where there is a GPU"


@pytest.mark.parametrize("bug", [KeyError("boxes"), KeyError(), TypeError("f() takes 1"), ValueError("shapes differ")])
def test_a_bug_keeps_its_traceback(bug):
    with pytest.raises(type(bug)) as caught, user_errors():
        raise bug
    assert caught.value is bug


@pytest.mark.parametrize("bug", [TypeError, AttributeError, KeyError, AssertionError])
def test_a_bug_in_a_constructor_keeps_its_traceback(bug):
    class Buggy:
        def __init__(self, topk=9):
            raise bug

    with pytest.raises(bug), user_errors():
        check_assigners(Config({"model": {"assigner": {"type": Buggy, "topk": 3}}}))


# ------------------------------------------------------------------------------------------------ data and work folder


def strings(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("root", ["elsewhere", "elsewhere/"])
@pytest.mark.parametrize(
    ("config", "old"),
    [
        ("mmdet::atss/atss_r50_fpn_1x_coco.py", "data/coco"),
        ("mmdet::yolox/yolox_s_8xb8-300e_coco.py", "data/coco"),  # data_root inside MultiImageMixDataset
        (str(ROOT / "configs/faster_rcnn/faster-rcnn_r18_fpn_12e_bccd.py"), "data/bccd"),
    ],
)
def test_data_root_reaches_every_data_set_and_metric(config, old, root, tmp_path):
    path = write(tmp_path / "inherits.py", f"_base_ = {config!r}\n")
    before, after = load_config(parse(path)), load_config(parse(path, "--cfg-options", f"data_root={root}"))
    moved = [text for text in strings(before.to_dict()) if text.startswith(old)]
    assert len(moved) >= 5
    assert not [text for text in strings(after.to_dict()) if text.startswith(old)]
    assert after.data_root.rstrip("/") == "elsewhere"
    assert after.val_evaluator.ann_file == before.val_evaluator.ann_file.replace(old, "elsewhere")


def test_an_option_for_one_data_set_goes_before_data_root():
    options = ["data_root=elsewhere", "train_dataloader.dataset.data_root=here"]
    cfg = load_config(parse(SHAPES_CONFIG, "--cfg-options", *options))
    assert cfg.train_dataloader.dataset.data_root == "here"
    assert cfg.val_dataloader.dataset.data_root == "elsewhere"


@pytest.mark.parametrize(
    ("config", "variable"),
    [("atss_r18_fpn_12e_bccd.py", "VISDET_BCCD"), ("atss_r50_fpn_1x_coco.py", "VISDET_COCO")],
)
def test_data_root_from_the_environment(config, variable, monkeypatch):
    config = str(ROOT / "configs" / "atss" / config)
    monkeypatch.setenv(variable, "/from/environment")
    cfg = load_config(parse(config))
    assert cfg.train_dataloader.dataset.data_root.rstrip("/") == "/from/environment"
    assert cfg.val_evaluator.ann_file.startswith("/from/environment/annotations/")
    cfg = load_config(parse(config, "--cfg-options", "data_root=/from/options"))
    assert cfg.train_dataloader.dataset.data_root == "/from/options"
    assert cfg.val_evaluator.ann_file.startswith("/from/options/annotations/")


def test_work_dir_of_the_command_line_goes_before_the_configs_before_the_name(tmp_path):
    plain = write(tmp_path / "plain.py", "model = dict()\n")
    named = write(tmp_path / "named.py", "work_dir = 'of_config'\n")
    assert load_config(parse(plain)).work_dir == "work_dirs/plain"
    assert load_config(parse(named)).work_dir == "of_config"
    assert load_config(parse(named, "--work-dir", "of_option")).work_dir == "of_option"
    assert load_config(parse(plain, "--cfg-options", "work_dir=of_cfg_options")).work_dir == "of_cfg_options"


def data_config(dataset: dict, **loop) -> Config:
    return Config({"train_dataloader": {"dataset": dataset}, "train_cfg": {"by_epoch": True}, **loop})


MISSING = {"type": "CocoDataset", "data_root": "nowhere/", "ann_file": "a.json"}


@pytest.mark.parametrize(
    ("dataset", "where"),
    [
        (MISSING, "dataset"),
        ({"type": "RepeatDataset", "times": 2, "dataset": MISSING}, "dataset.dataset"),
        ({"type": "ConcatDataset", "datasets": [{"type": "CocoDataset"}, MISSING]}, "dataset.datasets.1"),
        ({"type": "MultiImageMixDataset", "dataset": {"type": "RepeatDataset", "dataset": MISSING}},
         "dataset.dataset.dataset"),
    ],
)  # fmt: skip
def test_missing_data_are_found_inside_wrapped_data_sets(dataset, where):
    with pytest.raises(UserError, match=rf"data root nowhere/ of train_dataloader\.{where} doesn't exist"):
        check_config(data_config(dataset), ["train"])


def test_a_missing_root_is_told_once():
    """Train, validation and its metric read below it."""
    cfg = Config({f"{phase}_dataloader": {"dataset": MISSING} for phase in ("train", "val")})
    cfg.val_evaluator = {"type": "CocoMetric", "ann_file": "nowhere/a.json"}
    with pytest.raises(UserError, match=r"^the data root nowhere/ of train_dataloader.dataset doesn't exist; [^(]+$"):
        check_config(cfg, ["train", "val"])


def test_data_that_need_not_exist():
    check_config(data_config({**MISSING, "backend_args": {"backend": "petrel"}}), ["train"])
    check_config(data_config({**MISSING, "data_root": "s3://bucket/"}), ["train"])
    check_config(data_config(MISSING, train_cfg=None), ["train"])
    check_config(data_config(MISSING), ["val", "test"])


# --------------------------------------------------------------------------------------------------------- assigners


def built(cfg: Config, path: str = "assigner"):
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MMDET.build(cfg.model.train_cfg[path])


def assigner_config(tmp_path, *types, **extra) -> str:
    nodes = ", ".join(f"a{index}=dict(assigner=dict(type={kind!r}))" for index, kind in enumerate(types))
    return write(tmp_path / "assigners.py", f"model = dict(train_cfg=dict({nodes}))\n" + extra.get("text", ""))


@pytest.mark.parametrize(
    ("which", "package"), [("config", "mmdet"), ("visdet", "visdet_assigners"), ("mmdet", "mmdet")]
)
def test_whose_assigner_an_untouched_mmdet_config_gets(which, package, tmp_path):
    path = write(tmp_path / "inherits.py", "_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'\n")
    assigner = built(load_config(parse(path, "--assigners", which)))
    assert type(assigner).__name__ == "ATSSAssigner"
    assert type(assigner).__module__.split(".")[0] == package


@pytest.mark.parametrize("imports", ["", "custom_imports = dict(imports=['visdet_assigners.dropin'])\n"])
def test_mmdets_assigners_in_place_of_ours(imports, tmp_path):
    text = """
rcnn = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5,
            iou_calculator=dict(type='visdet_assigners.BboxOverlaps2D'))
detr = dict(type='visdet_assigners.HungarianAssigner',
            match_costs=(dict(type='visdet_assigners.FocalLossCost'), dict(type='mmengine.IoUCost')))
model = dict(train_cfg=dict(rcnn=[dict(assigner=rcnn)], assigner=detr))
"""
    path = write(tmp_path / "ours.py", text + imports)
    cfg = load_config(parse(path, "--assigners", "mmdet"))
    hungarian = built(cfg)
    rcnn = built(Config({"model": {"train_cfg": cfg.model.train_cfg.rcnn[0]}}))
    parts = [hungarian, *hungarian.match_costs, rcnn, rcnn.iou_calculator]
    assert [type(part).__name__ for part in parts] == [
        "HungarianAssigner", "FocalLossCost", "IoUCost", "MaxIoUAssigner", "BboxOverlaps2D"]  # fmt: skip
    assert {type(part).__module__.split(".")[0] for part in parts} == {"mmdet"}


def test_plain_names_stay_as_heads_may_ask_for_them():
    cfg = Config({"model": {"train_cfg": {"assigner": {"type": "PointAssigner"}}}})
    for which, package in (("visdet", "visdet_assigners"), ("mmdet", "mmdet")):
        apply_assigners(cfg, which)
        assert cfg.model.train_cfg.assigner.type == "PointAssigner"
        assert type(built(cfg, "assigner")).__module__.split(".")[0] == package


def test_classes_as_types_are_exchanged_both_ways():
    cfg = Config({"model": {"train_cfg": {"ours": {"type": ATSSAssigner, "topk": 9}, "theirs": {"type": MMDetMaxIoU}}}})
    both = cfg.model.train_cfg
    apply_assigners(cfg, "mmdet")
    assert (both.ours.type, both.theirs.type) == ("mmdet.ATSSAssigner", MMDetMaxIoU)
    apply_assigners(cfg, "visdet")
    assert (both.ours.type, both.theirs.type) == ("mmdet.ATSSAssigner", "visdet_assigners.MaxIoUAssigner")
    assert type(built(cfg, "ours")) is ATSSAssigner


@pytest.mark.parametrize("kind", ["visdet_assigners.OnlyOurs", "mmengine.OnlyOurs", "OnlyOurs"])
def test_mmdet_has_none_of_that_name(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(registry.REGISTERED, "OnlyOurs", ATSSAssigner)
    path = assigner_config(tmp_path, "ATSSAssigner", kind)
    line = one_error_line(lambda: train.main([path, "--assigners", "mmdet"]), capsys)
    assert "mmdet has no OnlyOurs" in line
    assert "model.train_cfg.a1.assigner" in line


def test_types_of_other_registries_are_left_alone(tmp_path):
    text = "model['bbox_head'] = dict(type='ATSSHead')\n"
    text += "custom_hooks = [dict(type='visdet_assigners.AssignmentHook')]\n"
    path = assigner_config(tmp_path, "visdet_assigners.ATSSAssigner", text=text)
    for which in ("visdet", "mmdet"):
        cfg = load_config(parse(path, "--assigners", which))
        assert cfg.model.bbox_head.type == "ATSSHead"
        assert cfg.custom_hooks[0].type == "visdet_assigners.AssignmentHook"


def test_every_config_of_the_package_passes_the_check_of_its_assigners():
    configs = sorted((ROOT / "configs").glob("[a-z]*/*.py"))
    assert len(configs) >= 21
    for config in configs:
        check_assigners(load_config(parse(str(config))))


# ------------------------------------------------------------------------------------------------------- whole runs


def run(*command: str, **kwargs) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


SHORT = ["train_dataloader.batch_size=2", "train_cfg.max_epochs=1", "val_cfg=None", "val_dataloader=None",
         "val_evaluator=None", "default_hooks.logger.interval=1", "train_dataloader.num_workers=0",
         "train_dataloader.persistent_workers=False"]  # fmt: skip


def test_train_then_test(shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = ["--cfg-options", f"data_root={shapes}"]
    tool = [sys.executable, str(ROOT / "tools" / "train.py"), SHAPES_CONFIG, "--work-dir", "work"]
    log = run(*tool, "--assigners", "visdet", *options, *SHORT, cwd=tmp_path)
    assert "Epoch(train) [1][2/2]" in log
    tool = [sys.executable, str(ROOT / "tools" / "test.py"), SHAPES_CONFIG, "work/epoch_1.pth", "--work-dir", "work"]
    dump = ["--out", "predictions.pkl", "--show-dir", "drawn"]
    log = run(*tool, *dump, *options, "model.test_cfg.score_thr=0.0", cwd=tmp_path)
    assert "coco/bbox_mAP" in log
    assert (tmp_path / "predictions.pkl").stat().st_size
    assert len(list(tmp_path.glob("work/*/drawn/*"))) == 4
    assert "coco/bbox_mAP" in run(*tool, "--tta", *options, "model.test_cfg.score_thr=0.0", cwd=tmp_path)


@pytest.mark.slow(reason="two times two processes")
def test_two_processes_on_the_cpu(shapes, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.setenv("PORT", "29517")
    options = ["--cfg-options", f"data_root={shapes}"]
    log = run("bash", str(ROOT / "tools" / "dist_train.sh"), SHAPES_CONFIG, "2", "--work-dir", "work", *options, *SHORT,
              cwd=tmp_path)  # fmt: skip
    assert "Epoch(train) [1][1/1]" in log  # two processes share the four pictures in batches of two
    assert (tmp_path / "work" / "epoch_1.pth").exists()
    log = run("bash", str(ROOT / "tools" / "dist_test.sh"), SHAPES_CONFIG, "work/epoch_1.pth", "2", *options,
              "model.test_cfg.score_thr=0.0", cwd=tmp_path)  # fmt: skip
    assert "coco/bbox_mAP" in log


@pytest.mark.parametrize("script", ["dist_train.sh", "dist_test.sh", "slurm_train.sh", "slurm_test.sh"])
def test_scripts_tell_their_usage(script):
    done = subprocess.run(["bash", str(ROOT / "tools" / script), "x"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


@pytest.mark.parametrize(
    ("script", "arguments", "command"),
    [
        (
            "slurm_train.sh",
            ["c.py", "out", "--amp"],
            "train.py c.py --work-dir out --launcher slurm --amp",
        ),
        ("slurm_test.sh", ["c.py", "m.pth", "--tta"], "test.py c.py m.pth --launcher slurm --tta"),
    ],
)
def test_slurm_scripts_call_srun(script, arguments, command, tmp_path, monkeypatch):
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("GPUS", "4")
    monkeypatch.setenv("SRUN_ARGS", "--time=1 --quiet")
    words = run("bash", str(ROOT / "tools" / script), "part", "job", *arguments)
    assert words.strip().endswith(command)
    for option in ("--partition=part", "--job-name=job", "--ntasks=4", "--gres=gpu:8", "--time=1 --quiet"):
        assert option in words


class TestCheckpoints:
    """Only tensors and mmengine's own records are read; a resumed training takes the newest whole file."""

    def test_what_mmengine_writes(self, tmp_path):
        from mmengine.logging import HistoryBuffer

        buffer = HistoryBuffer([1.0, 2.0], [1, 1])
        torch.save(dict(state_dict={"a": torch.ones(2)}, message_hub=dict(loss=buffer)), tmp_path / "epoch_1.pth")
        loaded = load_checkpoint(str(tmp_path / "epoch_1.pth"))
        assert loaded["message_hub"]["loss"].mean() == 1.5

    @pytest.mark.parametrize("content", ["code", "attribute", "cut off", "list"])
    def test_what_is_refused(self, content, tmp_path):
        path = tmp_path / "epoch_1.pth"
        harmful = {"code": Harmful(os.getcwd), "attribute": OrderedDict().keys}
        torch.save({"a": harmful[content]} if content in harmful else [], path)
        if content == "cut off":
            path.write_bytes(path.read_bytes()[:40])
        message = {"code": "which could run code", "attribute": "damaged", "cut off": "damaged", "list": "a list"}
        with pytest.raises(UserError, match=message[content]):
            load_checkpoint(str(path))

    def test_resume_skips_what_is_not_whole(self, tmp_path, capsys):
        assert checkpoint_to_resume(str(tmp_path)) is None
        for epoch in (1, 2, 10):
            torch.save(dict(state_dict={}), tmp_path / f"epoch_{epoch}.pth")
        (tmp_path / "epoch_10.pth").write_bytes(b"half")
        assert checkpoint_to_resume(str(tmp_path)) == str(tmp_path / "epoch_2.pth")
        assert "not resumed from" in capsys.readouterr().err
        for epoch in (1, 2):
            (tmp_path / f"epoch_{epoch}.pth").write_bytes(b"")
        with pytest.raises(UserError, match=r"no checkpoint in .* can be read"):
            checkpoint_to_resume(str(tmp_path))


class Harmful:
    """Calls a function when it is read."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        return self.function, ()
