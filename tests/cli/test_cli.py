import inspect
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

import pytest
import tyro

from difix3d import cli
from difix3d.cli import benchmark, curate, download, evaluate, fix, render, train, view
from difix3d.cli.arguments import field_docstrings
from difix3d.difix_training.config import TrainDifixConfig
from difix3d.errors import UserError
from difix3d.limits import Limits, flag, limits_of, options_of

ROOT = Path(__file__).parents[2]


def test_a_user_error_is_one_line_without_a_traceback(monkeypatch, capsys):
    def fail(name):
        raise UserError("The fact", "the limit", "The cure")

    monkeypatch.setattr(cli, "import_module", lambda name: type("M", (), {"train": staticmethod(fail)}))
    with pytest.raises(SystemExit) as error:
        cli.dispatch("train", [])
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
    assert capsys.readouterr().err.startswith("difix3d: there is no command trian\n")


def test_scripts_are_the_commands():
    """One is started; the others are told from it by nothing but the name."""
    script = ROOT / "scripts" / "download.py"
    result = subprocess.run([sys.executable, script, "--list"], capture_output=True, text=True, check=True)
    assert "garden" in result.stdout
    for command in cli.COMMANDS:
        name = command.replace("-", "_")
        text = (ROOT / "scripts" / f"{name}.py").read_text()
        assert text == script.read_text().replace("difix3d download", f"difix3d {command}").replace(
            'dispatch("download")', f'dispatch("{command}")'
        ).replace("scripts/download.py", f"scripts/{name}.py")


def help_of(command, columns, capsys, monkeypatch):
    """What ``--help`` prints on a terminal so wide."""
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as error:
        cli.dispatch(command, ["--help"])
    assert error.value.code == 0
    return capsys.readouterr().out


OPTIONS = {
    "train": train.Command,
    "render": render.RenderConfig,
    "view": view.ViewConfig,
    "evaluate": evaluate.EvaluateConfig,
    "download": download.Download,
    "fix": fix.FixConfig,
    "curate": curate.CurateConfig,
    "train-difix": TrainDifixConfig,
    "benchmark": benchmark.Options,
}


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_teaches(command, capsys, monkeypatch):
    text = help_of(command, 80, capsys, monkeypatch)
    assert f"usage: difix3d {command} " in text
    examples, _, rows = text.partition("Examples:\n")[2].partition("\n\n")
    assert examples.count("\n") > 0
    script = f"scripts/{command.replace('-', '_')}.py "  # which torchrun and accelerate need
    assert all(f"difix3d {command} " in line or script in line for line in examples.split("\n"))
    said = " ".join(rows.replace("│", " ").split())
    for _, path, hint in options_of(OPTIONS[command]):
        hidden = path.startswith("distill.confidence.")  # of YAML files only
        if not hidden and tyro.conf.Positional not in getattr(hint, "__metadata__", ()):
            after = re.split(rf"{flag(path)}[ ,]", said, maxsplit=1)[1:]
            assert after, path
            assert limits_of(hint) == Limits() or f"({limits_of(hint)}" in after[0], path


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_description_fits_80_columns_and_keeps_its_paragraphs(command, capsys, monkeypatch):
    about = help_of(command, 120, capsys, monkeypatch).partition("\n\n")[2].partition("\n\nExamples:")[0]
    assert max(map(len, about.split("\n"))) <= 80
    assert "``" not in about
    docstring = inspect.getdoc(OPTIONS[command]).partition("\n\nExamples:")[0].replace("``", "`")
    assert [part.split() for part in about.split("\n\n")] == [part.split() for part in docstring.split("\n\n")]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_option_is_explained(command):
    for kind in kinds_of(OPTIONS[command]):
        told = field_docstrings(kind)
        hints = get_type_hints(kind)
        assert not [f.name for f in fields(kind) if f.name not in told and not is_dataclass(hints[f.name])]


def kinds_of(kind):
    """A dataclass and those that its fields hold."""
    yield kind
    for hint in get_type_hints(kind).values():
        if is_dataclass(hint):
            yield from kinds_of(hint)


@pytest.mark.parametrize("columns", [80, 120])
def test_help_breaks_lines_where_they_are_full(columns, capsys, monkeypatch):
    rows = help_of("train", columns, capsys, monkeypatch).partition("Examples:")[2].replace("│", " ").split("\n")
    continued = [(row, after) for row, after in pairwise(rows) if after.startswith(" " * 20) and after.strip()]
    inside = [(row, after) for row, after in continued if row.startswith(" " * 20) or "  " in row.strip()]
    assert len(inside) > 40
    for row, after in inside:
        assert len(row.rstrip()) + 1 + len(after.split()[0]) > columns - 2, row


def test_the_name_that_a_command_had(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["difix3d", "train_difix", "--help"])
    with pytest.raises(SystemExit) as error:
        cli.main()
    assert error.value.code == 0
    assert "usage: difix3d train-difix" in capsys.readouterr().out


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
