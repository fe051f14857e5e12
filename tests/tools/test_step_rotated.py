"""mmrotate's configs and detectors with our assigners: short forms of `check_zoo.py --package mmrotate` and of
`tools/step_rotated.py`."""

import pytest

from rotated import mmrotate, needs_mmrotate
from toolbox import load_tool
from visdet_assigners import dropin
from visdet_assigners.assigners import atss

zoo = load_tool("check_zoo")
dropin.restore()
KINDS = {
    "rotated_retinanet/rotated-retinanet-hbox-le90_r50_fpn_1x_dota.py": "MaxIoUAssigner",
    "gliding_vertex/gliding-vertex-qbox_r50_fpn_1x_dota.py": "MaxIoUAssigner",
    "roi_trans/roi-trans-le90_r50_fpn_1x_dota.py": "MaxIoUAssigner",
    "rotated_atss/rotated-atss-le90_r50_fpn_1x_dota.py": "RotatedATSSAssigner",
    "rotated_rtmdet/rotated_rtmdet_tiny-3x-dota.py": "DynamicSoftLabelAssigner",
}
"""A config for each calculator and assigner."""


@needs_mmrotate
def test_assigners_of_every_calculator(capsys):
    mmrotate()
    assert zoo.main(["--package", "mmrotate", "--drawn", "2", "--only", *KINDS]) == 0
    out = capsys.readouterr().out
    assert "5 configs: 0 can't be resolved" in out
    for name in set(KINDS.values()):
        assert f" {name} " in out
    assert "equal to mmdet's" in out


@needs_mmrotate
def test_what_is_mmrotates_own_is_left_alone(capsys):
    assert zoo.main(["--package", "mmrotate", "--drawn", "1", "--only", "sasm*/*", "s2anet/*hrsc.py"]) == 0
    out = capsys.readouterr().out
    assert "mmrotate's own, left alone: SASAssigner in 1 configs" in out
    assert "not built: s2anet/s2anet-le135_r50_fpn_3x_hrsc.py: without ours, MaxIoUAssigner is not found" in out


@needs_mmrotate
def test_a_difference_is_found(capsys, monkeypatch):
    keep_best = atss.keep_best
    monkeypatch.setattr(atss, "keep_best", lambda rows, claimed, *rest: keep_best(rows, ~claimed, *rest))
    assert zoo.main(["--package", "mmrotate", "--only", "rotated_atss/*"]) == 1
    out = capsys.readouterr().out
    assert "different: rotated_atss/" in out
    assert "--package mmrotate" in out


def test_a_package_that_is_not_there(capsys):
    with pytest.raises(SystemExit) as exit_:
        zoo.main(["--package", "nobodys_package"])
    assert exit_.value.code == 2
    assert "--package nobodys_package can't be imported: No module named" in capsys.readouterr().err


@needs_mmrotate
@pytest.mark.parametrize("config", [name for name in KINDS if "roi_trans" not in name])
def test_losses_are_equal(config, capsys):
    tool = load_tool("step_rotated")
    assert tool.main([config]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith(f"| `{config}` | equal | {KINDS[config]}: ")
