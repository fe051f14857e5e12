"""Co-DETR's table: which trainings, in which order, and what is left out when it goes on."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from toolbox import ROOT, load_tool

codetr_table = load_tool("codetr_table")


class Trainings:
    """Takes the place of `subprocess.run`: writes a log instead of training, and fails where it is told to."""

    def __init__(self, fail_at=None):
        self.commands = []
        self.fail_at = fail_at

    def __call__(self, command, **_):
        folder = command[command.index("--work-dir") + 1]
        name = folder.rsplit("/", 1)[1]
        self.commands.append(name)
        if name == self.fail_at:
            return SimpleNamespace(returncode=1)
        log = Path(folder) / "20260101_000000/vis_data/scalars.json"
        log.parent.mkdir(parents=True)
        value = 0.1 if name.startswith("deformable") else 0.2
        log.write_text("\n".join(map(json.dumps, [{"loss": 1.0, "step": 10}, {"coco/bbox_mAP": value, "step": 1}])))
        return SimpleNamespace(returncode=0)


@pytest.fixture
def trainings(monkeypatch):
    def use(**options):
        made = Trainings(**options)
        monkeypatch.setattr(codetr_table.subprocess, "run", made)
        return made

    return use


def options(tmp_path, *more):
    return ["--work-dir", str(tmp_path), "--only", "K = 0", "K = 1", "--seeds", "0", "1", "--data", "bccd", *more]


def test_every_row_has_its_config_on_every_data_set():
    for data in codetr_table.DATA:
        for variant in codetr_table.VARIANTS:
            assert codetr_table.Run(data, variant, 0, ROOT).config.is_file()


def test_seeds_come_one_after_another_and_what_is_done_is_left_out(tmp_path, trainings, capsys):
    plain, one = "deformable-detr_r18_12e_bccd", "co-deformable-detr-atss_r18_12e_bccd"
    stopped = trainings(fail_at=f"{plain}-1")
    with pytest.raises(SystemExit) as error:
        codetr_table.main(options(tmp_path))
    assert error.value.code == 2
    assert f"{plain}-1 ended with status 1; mend it and start the same command again" in capsys.readouterr().err
    assert stopped.commands == [f"{plain}-0", f"{one}-0", f"{plain}-1"]
    rest = trainings()
    codetr_table.main(options(tmp_path))
    assert rest.commands == [f"{plain}-1", f"{one}-1"]
    out = capsys.readouterr().out
    assert "| K = 0 | 10.0 (10.0 / 10.0) |" in out
    assert "| K = 1 | 20.0 (20.0 / 20.0) |" in out
    assert (tmp_path / "bccd.png").read_bytes().startswith(b"\x89PNG")
    nothing = trainings()
    codetr_table.main(options(tmp_path, "--table"))
    assert nothing.commands == []
    assert "| K = 1 | 20.0" in capsys.readouterr().out


def test_the_command_resumes_with_the_seed(tmp_path):
    run = codetr_table.Run("nuclei", "one to many", 2, tmp_path)
    command = run.command(["data_root=x"])
    assert command[2:5] == [str(run.config), "--work-dir", str(run.folder)]
    assert command[5:] == ["--resume", "--cfg-options", "randomness.seed=2", "data_root=x"]


def test_other_options_need_another_folder(tmp_path, trainings, capsys):
    trainings()
    codetr_table.main(options(tmp_path, "--cfg-options", "train_cfg.max_epochs=1"))
    with pytest.raises(SystemExit) as stopped:
        codetr_table.main(options(tmp_path))
    assert stopped.value.code == 2
    assert "was trained with other --cfg-options (train_cfg.max_epochs=1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "--work-dir"), (["--work-dir", "x", "--only", "K = 9"], "invalid choice: 'K = 9'")],
)
def test_mistakes_of_the_user(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        codetr_table.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
