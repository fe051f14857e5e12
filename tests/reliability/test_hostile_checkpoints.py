"""Checkpoints that would run code when they are read: through each tool and each way by which mmengine reads one.

The payload makes a file.  A test fails where the file is there, or where no line says what to do.
"""

import functools
import http.server
import io
import pickle
import re
import threading
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModule
from mmengine.runner import Runner
from mmengine.runner import checkpoint as mmengine_checkpoint

from linear_training import Model, train
from toolbox import ROOT, load_tool
from visdet_assigners.errors import UserError
from visdet_assigners.training.checkpoints import CheckpointError, check_sums, guard_mmengine, read_checkpoint
from visdet_assigners.training.running import checkpoint_to_resume

CONFIG = str(ROOT / "configs/atss/atss_r18_fpn_12e_shapes.py")


PATCHED = ("_safe_torch_load", "load_url")
# Taken before any test runs, of which those of the tools guard mmengine for good.
ALONE = dict(mmengine_checkpoint.CheckpointLoader._schemes), [getattr(mmengine_checkpoint, name) for name in PATCHED]


class Payload:
    """Makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(autouse=True)
def as_found(monkeypatch, tmp_path):
    """Work in an empty folder, with mmengine as it is without us, and leave it as it was."""
    monkeypatch.chdir(tmp_path)
    schemes, functions = ALONE
    monkeypatch.setattr(mmengine_checkpoint.CheckpointLoader, "_schemes", dict(schemes))
    for name, function in zip(PATCHED, functions):
        monkeypatch.setattr(mmengine_checkpoint, name, function)


@pytest.fixture
def payload(tmp_path):
    """A checkpoint with the payload; the file that must not be there at the end."""
    path, made = tmp_path / "hostile.pth", tmp_path / "made"
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    state = {"weight": torch.ones(1, 2)}
    torch.save(dict(state_dict=state, meta=dict(epoch=1, iter=1), message_hub=hub, note=Payload(made)), path)
    return path, made


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    load_tool("make_shapes").main([str(folder), "--train", "2", "--val", "2", "--size", "64", "64"])
    return str(folder)


def refused(run, capsys):
    """Run a tool; it must end with one line that says what is wrong and what to do."""
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "which could run code; if you trust it, save its tensors alone with torch.save(" in line, line
    return line


# -------------------------------------------------------------------------------------------------------- our tools

TOOLS = {
    "test": ["CONFIG", "FILE"],
    "train": ["CONFIG", "--resume", "FILE"],
    "train from": ["CONFIG", "--cfg-options", "load_from=FILE"],
    "browse_assignments": ["CONFIG", "FILE"],
    "assignment_report": ["CONFIG", "FILE"],
    "compare_assigners": ["CONFIG", "--to", "type=MaxIoUAssigner", "--checkpoints", "FILE"],
    "strip_codetr": ["FILE"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tools(tool, payload, shapes, capsys, monkeypatch):
    monkeypatch.setenv("VISDET_SHAPES", shapes)
    path, made = payload
    words = [word.replace("CONFIG", CONFIG).replace("FILE", str(path)) for word in TOOLS[tool]]
    assert str(path) in refused(lambda: load_tool(tool.split()[0]).main(words), capsys)
    assert not made.exists()


def test_every_tool_that_takes_a_checkpoint_is_tried():
    """A tool that is new must be added to `TOOLS`."""
    asking = set()
    for tool in (ROOT / "tools").glob("*.py"):
        command = re.search(r"from visdet_assigners\.commands\.(\w+) import main", tool.read_text())
        path = ROOT / f"visdet_assigners/commands/{command[1]}.py" if command else tool
        if re.search(r"heckpoint\(args\.|load_from", path.read_text()):
            asking.add(tool.stem)
    assert {"compare_assigners", *asking} == {name.split()[0] for name in TOOLS}


def test_resume_takes_an_older_one(payload, tmp_path, capsys):
    path, made = payload
    torch.save(dict(state_dict={}), tmp_path / "epoch_1.pth")
    path.rename(tmp_path / "epoch_2.pth")
    assert checkpoint_to_resume(str(tmp_path)) == str(tmp_path / "epoch_1.pth")
    assert "epoch_2.pth: the checkpoint" in capsys.readouterr().err
    assert not made.exists()


@pytest.mark.parametrize("how", ["--resume", "resume=True"])
def test_last_checkpoint_is_not_followed_out_of_the_folder(how, payload, shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VISDET_SHAPES", shapes)
    path, made = payload
    work = tmp_path / "work"
    work.mkdir()
    (work / "last_checkpoint").write_text(str(path))
    tool, begun = load_tool("train"), []
    monkeypatch.setattr(tool, "build_runner", lambda cfg: begun.append(cfg) or type("", (), {"train": list})())
    options = ["--resume"] if how == "--resume" else ["--cfg-options", how]
    tool.main([CONFIG, "--work-dir", str(work), *options])
    assert f"points to {path}, which is not in that folder; not followed" in capsys.readouterr().err
    assert (begun[0].resume, begun[0].load_from) == (False, None)  # else mmengine would look for it
    assert not made.exists()


def test_last_checkpoint_in_the_folder_raises_no_alarm(tmp_path, capsys):
    for target in (str(tmp_path / "epoch_1.pth"), "epoch_1.pth", ""):
        (tmp_path / "last_checkpoint").write_text(target)
        checkpoint_to_resume(str(tmp_path))
    assert not capsys.readouterr().err


# ----------------------------------------------------------------------------------------------- mmengine's own reading


def runner(folder, **arguments):
    return Runner(
        Model(2, 1),
        str(folder),
        train_dataloader=dict(dataset=[0, 1], sampler=dict(type="DefaultSampler", shuffle=False), batch_size=1),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        default_hooks=dict(checkpoint=None),
        experiment_name=folder.name,
        log_level="ERROR",
        **arguments,
    )


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of the working folder."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(quiet, directory=tmp_path)) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def init_cfg(source):
    class Pretrained(BaseModule):
        def __init__(self):
            super().__init__(init_cfg=dict(type="Pretrained", checkpoint=source))
            self.weight = torch.nn.Parameter(torch.zeros(1, 2))

    Pretrained().init_weights()


WAYS = {
    "load_from": lambda path, server, folder: runner(folder / "w", load_from=str(path)).train(),
    "resume": lambda path, server, folder: runner(folder / "w", load_from=str(path), resume=True).train(),
    "init_cfg": lambda path, server, folder: init_cfg(str(path)),
    "address": lambda path, server, folder: init_cfg(f"{server}/{path.name}"),
    "name": lambda path, server, folder: init_cfg("torchvision://resnet18"),
}


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "alone"])
@pytest.mark.parametrize("way", WAYS)
def test_mmengine(way, guarded, payload, server, tmp_path, monkeypatch):
    """Left alone, mmengine runs the payload; where it learns not to, the guard may go."""
    path, made = payload
    names = lambda: {"resnet18": f"{server}/{path.name}"}  # noqa: E731
    monkeypatch.setattr(mmengine_checkpoint, "get_torchvision_models", names)
    if guarded:
        guard_mmengine()
        with pytest.raises(CheckpointError, match="could run code; if you trust it"):
            WAYS[way](path, server, tmp_path)
    else:
        WAYS[way](path, server, tmp_path)
    assert made.exists() != guarded


@pytest.mark.parametrize("way", WAYS)
def test_a_sound_checkpoint_is_read(way, payload, server, tmp_path, monkeypatch):
    path, _ = payload
    train(tmp_path / "t", 1)
    (tmp_path / "t/epoch_1.pth").rename(path)
    names = lambda: {"resnet18": f"{server}/{path.name}"}  # noqa: E731
    monkeypatch.setattr(mmengine_checkpoint, "get_torchvision_models", names)
    guard_mmengine()
    WAYS[way](path, server, tmp_path)


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "alone"])
def test_a_config_inside_a_checkpoint_is_not_run(guarded, tmp_path):
    """mmengine's resume reads ``meta['config']`` as the Python code that it is; tensors alone don't save from that."""
    train(tmp_path / "t", 1)
    made = tmp_path / "made"
    checkpoint = read_checkpoint(tmp_path / "t/epoch_1.pth")
    checkpoint["meta"]["config"] = f"a = open({str(made)!r}, 'w').close()"
    torch.save(checkpoint, tmp_path / "hostile.pth")
    if guarded:
        guard_mmengine()
    resumed = runner(tmp_path / "w", load_from=str(tmp_path / "hostile.pth"), resume=True)
    resumed.train()
    assert resumed.epoch == 1
    assert made.exists() != guarded


# ------------------------------------------------------------------------------------------------ damage, old versions


def test_an_altered_bit_is_found(tmp_path):
    path = tmp_path / "epoch_1.pth"
    weight = torch.arange(1000.0)
    torch.save(dict(state_dict={"weight": weight}), path)
    check_sums(path)
    content = bytearray(path.read_bytes())
    content[content.index(weight.numpy().tobytes()) + 2001] ^= 1
    path.write_bytes(content)
    assert not torch.equal(read_checkpoint(path)["state_dict"]["weight"], weight)  # torch doesn't see it
    with pytest.raises(CheckpointError, match="data/0 in it is not what was written"):
        check_sums(path)
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read"):
        checkpoint_to_resume(str(tmp_path))


def test_a_file_of_another_kind_has_no_sums(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"abc")
    with pytest.raises(CheckpointError, match="damaged"):
        check_sums(tmp_path / "a.pth")


@pytest.mark.parametrize("core", ["core", "_core"])
def test_arrays_of_other_versions_of_numpy(core, tmp_path):
    """numpy 2 moved what arrays are built by; checkpoints of before and after are read by both."""
    path = tmp_path / "a.pth"
    torch.save(dict(a=np.arange(3.0), b=np.float64(2), c=HistoryBuffer([1.0], [1])), path)
    with zipfile.ZipFile(path) as archive:
        parts = {one: archive.read(one) for one in archive.namelist()}
    found = [name for name in parts if name.endswith("data.pkl")]
    for name in found:
        parts[name] = parts[name].replace(b"numpy._core.multiarray", f"numpy.{core}.multiarray".encode())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    loaded = read_checkpoint(path)
    assert loaded["a"].tolist() == [0, 1, 2]
    assert loaded["b"] == 2
    assert loaded["c"].mean() == 1


def test_the_payload_works(tmp_path):
    """So that the tests above can fail."""
    made = tmp_path / "made"
    pickle.load(io.BytesIO(pickle.dumps(Payload(made)))).close()
    assert made.exists()
