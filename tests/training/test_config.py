from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml

from difix3d.cli.train import find_config, read
from difix3d.distill import DistillConfig
from difix3d.errors import UserError
from difix3d.training.config import TrainConfig
from difix3d.training.configfile import merge, read_yaml, write_yaml
from difix3d.training.presets import PRESETS, from_preset, settle


def parse(args):
    """What the command line makes of the configuration."""
    return read(args).config


CPU = torch.device("cpu")


def test_yaml_round_trip(tmp_path):
    config = merge(TrainConfig(), {"densify": {"kind": "mcmc", "cap": 5}, "eval_steps": [1, 2]}, source="test")
    write_yaml(config, tmp_path / "config.yaml")
    assert merge(TrainConfig(), read_yaml(tmp_path / "config.yaml"), source="file") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_step": 5}, r"x.yaml sets max_step, which does not exist. Did you mean max_steps\?"),
        ({"densify": {"stpo": 0.5}}, r"densify.stpo, which does not exist. Did you mean densify.stop\?"),
        ({"optim": 3}, "optim to 3. optim is a group of options"),
        ({"max_steps": "many"}, "max_steps to 'many'. it must be int"),
        ({"max_steps": True}, "max_steps to True. it must be int"),
        ({"device": "tpu"}, "device to 'tpu'. it must be one of auto, cuda, cpu"),
        ({"eval_steps": 7}, "eval_steps to 7"),
    ],
)
def test_wrong_keys_and_types_are_named(values, message):
    with pytest.raises(UserError, match=message):
        merge(TrainConfig(), values, source="x.yaml")


def test_yaml_numbers_that_yaml_reads_as_text_are_numbers():
    assert merge(TrainConfig(), {"optim": {"means": "1e-3"}}, source="x").optim.means == 1e-3


def test_options_that_are_gone_do_not_keep_old_runs_from_going_on():
    assert merge(TrainConfig(), {"distill": {"confidence": {"render_tolerance": 0.04}}}, source="x") == TrainConfig()


def test_not_a_mapping_or_not_yaml(tmp_path):
    (tmp_path / "a.yaml").write_text("- 1\n- 2\n")
    with pytest.raises(UserError, match=r"a\.yaml holds a list"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("a: [1")
    with pytest.raises(UserError, match=r"b\.yaml cannot be read as YAML"):
        read_yaml(tmp_path / "b.yaml")


def test_nested_aliases_are_not_written_out():
    """Each line is nine times the one before: a gigabyte, if the error showed the value."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    bomb = yaml.safe_load("\n".join(lines))["a9"]
    for values in ({"max_steps": bomb}, {"eval_steps": bomb}, {"loss": bomb}, {"fixer": bomb}):
        with pytest.raises(UserError, match="sets ") as error:
            merge(TrainConfig(), values, source="test")
        assert len(str(error.value)) < 10_000


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name):
    assert asdict(from_preset(name))


def test_all_shipped_configs_are_valid():
    folder = Path(__file__).parents[2] / "configs"
    files = sorted(folder.glob("*.yaml"))
    assert len(files) >= 10
    for path in files:
        assert merge(TrainConfig(), read_yaml(path), source=str(path)).scene == path.stem


def test_command_line_wins_over_file_over_preset(tmp_path):
    (tmp_path / "my.yaml").write_text("preset: mcmc\nmax_steps: 11\nseed: 5\n")
    config = parse(
        ["--config", str(tmp_path / "my.yaml"), "--seed", "6", "--densify.cap", "77", "--eval-steps", "3", "4"]
    )
    assert (config.densify.kind, config.max_steps, config.seed, config.densify.cap_max) == ("mcmc", 11, 6, 77)
    assert config.eval_steps == (3, 4)


def test_a_named_scene_brings_its_file():
    assert find_config("garden") is not None
    assert find_config("./garden") is None
    assert parse(["--scene", "garden"]).resolution == 1297


def test_unknown_preset():
    with pytest.raises(UserError, match="no preset 'turbo'. Choose from auto, standard"):
        parse(["--preset", "turbo"])


def test_resume_begins_from_the_runs_own_configuration(tmp_path):
    write_yaml(merge(TrainConfig(), {"max_steps": 123, "scene": "fox"}, source="x"), tmp_path / "config.yaml")
    config = parse(["--resume", "--output-dir", str(tmp_path)])
    assert (config.max_steps, config.scene, config.resume) == (123, "fox", True)
    with pytest.raises(UserError, match="There is no run in"):
        parse(["--resume", "--output-dir", str(tmp_path / "other")])


def test_spherical_harmonics_grow():
    config = TrainConfig(max_steps=30_000)
    assert [config.sh_degree_at(step) for step in (0, 999, 1000, 2500, 29_999)] == [0, 0, 1, 2, 3]
    short = TrainConfig(max_steps=700)
    assert short.sh_degree_at(300) == 3


def test_the_small_weights_teach_less_often_unless_told_otherwise(tmp_path):
    """Alike for the command line and in Python: the trainer decides, and what was set wins."""

    def share(*words):
        return settle(parse(list(words)), CPU).distill.novel_prob

    mini = TrainConfig(fixer="mini")
    assert settle(mini, CPU).distill.novel_prob == share("--fixer", "mini") == 0.15
    # on a CPU they are the default
    assert settle(TrainConfig(), CPU).distill.novel_prob == share("--device", "cpu") == 0.15
    assert share("--fixer", "nvidia/difix_ref") == settle(TrainConfig(), torch.device("cuda")).distill.novel_prob == 0.3
    assert share("--fixer", "mini", "--distill.share", "0.3") == 0.3
    assert settle(replace(mini, distill=replace(mini.distill, novel_prob=0.3)), CPU).distill.novel_prob == 0.3
    (tmp_path / "my.yaml").write_text("fixer: mini\n")
    assert share("--config", str(tmp_path / "my.yaml")) == 0.15
    assert share("--config", str(tmp_path / "my.yaml"), "--fixer", "some/weights") == 0.3
    (tmp_path / "my.yaml").write_text("distill: {share: 0.4}\n")
    assert share("--config", str(tmp_path / "my.yaml"), "--fixer", "mini") == 0.4


def test_the_names_that_options_had(tmp_path, capsys):
    old = {"step": 0.1, "perturbed": 3, "share": 0.2, "alpha": 0.4, "probe": 7, "held_out": 2}
    new = {"step_size": 0.1, "num_perturbed": 3, "novel_prob": 0.2, "min_alpha": 0.4, "trial_steps": 7}
    expected = replace(DistillConfig(), **new, num_held_out=2)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"distill": old, "densify": {"grad": 0.1, "noise": 3.0}}))
    config = parse(["--resume", "--output-dir", str(tmp_path)])
    assert config.distill == expected
    assert (config.densify.grow_grad2d, config.densify.noise_lr) == (0.1, 3.0)
    words = [word for key, value in old.items() for word in (f"--distill.{key.replace('_', '-')}", str(value))]
    assert parse([*words, "--densify.cap", "9"]).distill == expected
    told = capsys.readouterr().err
    assert "--distill.held-out is called --distill.num-held-out now" in told
    assert "--densify.cap is called --densify.cap-max now" in told
