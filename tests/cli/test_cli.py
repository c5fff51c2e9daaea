import subprocess
import sys
from pathlib import Path

import pytest

from difix3d import cli
from difix3d.errors import UserError

ROOT = Path(__file__).parents[2]


def test_a_user_error_is_one_line_without_a_traceback(monkeypatch, capsys):
    def fail(name):
        raise UserError("The fact", "the limit", "The cure")

    monkeypatch.setattr(cli, "import_module", lambda name: type("M", (), {"train": staticmethod(fail)}))
    with pytest.raises(SystemExit) as error:
        cli.run("train", [])
    assert error.value.code == 2
    assert capsys.readouterr().err.strip() == "difix3d train: The fact. the limit. The cure."


def test_the_list_of_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["difix3d", "--help"])
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert error.value.code == 0
    output = capsys.readouterr().out
    assert all(name in output for name in cli.COMMANDS)
    monkeypatch.setattr(sys, "argv", ["difix3d", "trian"])
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert error.value.code == 2


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_a_script_whose_help_teaches(command):
    script = ROOT / "scripts" / f"{command}.py"
    result = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True)
    assert "usage:" in result.stdout
    examples = result.stdout.partition("Examples:\n")[2].partition("╭")[0].split("\n")
    assert all(f"{command}" in line for line in examples if line.strip())
    assert len(examples) > 2


def test_importing_the_package_is_light_and_touches_no_cuda():
    code = (
        "import sys, difix3d; from difix3d import load_scene, Trainer, rasterize, Cameras; import torch;"
        "assert not torch.cuda.is_initialized();"
        "heavy = {'gsplat', 'diffusers', 'transformers', 'viser', 'nerfstudio', 'pycolmap'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_of_the_package():
    import difix3d

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        difix3d.nonsense  # noqa: B018
