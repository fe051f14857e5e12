"""What is left without the auxiliary modules loads into the plain detector."""

import copy

import pytest
import torch

from co_detrs import BRANCHES, build_co, co_config, images, plain_config
from detectors import build
from toolbox import load_tool
from visdet_assigners.codetr import strip_auxiliary, strip_config


@pytest.fixture(scope="module")
def model():
    return build_co("refined", BRANCHES[:2])


def test_parameters_by_number(model):
    plain = build(plain_config("refined"))

    def count(one):
        return sum(parameter.numel() for parameter in one.parameters())

    assert count(model) > count(plain)
    assert count(strip_auxiliary(model)) == count(plain)


def test_the_model_itself_is_not_changed(model):
    names = list(model.state_dict())
    stripped = strip_auxiliary(model)
    assert list(model.state_dict()) == names
    stripped.bbox_head.cls_branches[0].weight.data.zero_()
    assert model.bbox_head.cls_branches[0].weight.any()


def test_wrapped_and_averaged_weights(model):
    state = model.state_dict()
    averaged = {f"module.{name}": value for name, value in state.items()} | {"steps": torch.tensor(3)}
    checkpoint = dict(state_dict=state, ema_state_dict=averaged, optimizer=dict(state={}), meta=dict(epoch=3))
    stripped = strip_auxiliary(checkpoint)
    assert set(stripped) == {"state_dict", "ema_state_dict", "meta"}
    names = set(strip_auxiliary(model).state_dict())
    assert set(stripped["state_dict"]) == names
    assert set(stripped["ema_state_dict"]) == {f"module.{name}" for name in names} | {"steps"}


def test_the_config_of_the_plain_detector(model):
    collaborative = co_config("refined", BRANCHES[:2], lambda1=0.5)
    before = copy.deepcopy(collaborative)
    stripped = strip_config(collaborative)
    assert collaborative == before
    assert type(stripped) is type(collaborative)
    assert stripped == plain_config("refined")
    build(stripped).load_state_dict(strip_auxiliary(model.state_dict()))
    collaborative["type"] = type(model)  # as in a pure-Python config
    assert strip_config(collaborative) == stripped


def test_what_has_nothing_to_strip():
    plain = plain_config("refined")
    with pytest.raises(TypeError, match="DeformableDETR has no auxiliary modules; expected one of CoConditionalDETR"):
        strip_config(plain)
    with pytest.raises(TypeError, match="DeformableDETR has no auxiliary modules"):
        strip_auxiliary(build(plain))


def test_tool(model, tmp_path, capsys):
    tool = load_tool("strip_codetr")
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / "epoch_1.pth")
    (tmp_path / "config.py").write_text(f"model = {co_config('refined', BRANCHES[:2]).to_dict()}")
    tool.main([str(tmp_path / "epoch_1.pth"), "--config", str(tmp_path / "config.py")])
    assert "epoch_1_plain.pth" in capsys.readouterr().out
    from mmengine.config import Config

    plain = build(Config.fromfile(tmp_path / "config_plain.py").model)
    assert type(plain).__name__ == "DeformableDETR"
    plain.load_state_dict(torch.load(tmp_path / "epoch_1_plain.pth", weights_only=True)["state_dict"])
    with torch.no_grad():
        ours, theirs = (one.eval().predict(*images())[0].pred_instances for one in (model, plain))
    model.train()
    assert torch.equal(ours.bboxes, theirs.bboxes)
    assert torch.equal(ours.scores, theirs.scores)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pth"], "doesn't exist"),
        (["plain.pth"], "has no auxiliary modules"),
        (["co.pth", "--config", "missing.py"], "doesn't exist"),
        (["co.pth", "--config", "plain.py"], "has no auxiliary modules"),
        (["co.pth", "--out", "co.pth/a.pth"], "cannot write"),
    ],
)
def test_mistakes_of_the_user(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={"neck.weight": torch.zeros(1)}), "plain.pth")
    torch.save(dict(state_dict={"neck.weight": torch.zeros(1), "auxiliary.x": torch.zeros(1)}), "co.pth")
    (tmp_path / "plain.py").write_text("model = dict(type='DeformableDETR')")
    with pytest.raises(SystemExit) as stopped:
        load_tool("strip_codetr").main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
