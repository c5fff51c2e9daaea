"""Runs of nerfstudio's Splatfacto: settings are data, tensors are tensors, and the world is that of the cameras."""

import json

import numpy as np
import pytest
import torch
from nerfstudio_run import save, write_run

from difix3d.errors import UserError
from difix3d.gaussians import from_points, is_splat_file, read_splats
from difix3d.gaussians.nerfstudio import checkpoint_of, read_nerfstudio_run


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    model = from_points(rng.uniform(-1, 1, (20, 3)).astype(np.float32), rng.integers(0, 256, (20, 3), np.uint8))
    return model.map(lambda tensor: tensor + 0.1 * torch.randn(tensor.shape, generator=torch.manual_seed(1)))


@pytest.fixture
def to_theirs():
    angle, scale = 0.7, 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    there = np.eye(4)
    there[:3] = scale * np.c_[turn, [1.0, -2, 0.5]]
    return there


@pytest.fixture
def run(tmp_path, model, to_theirs):
    return write_run(tmp_path / "run", model, to_theirs, tmp_path / "capture")


def test_splats_come_into_the_world_of_the_cameras(run, model):
    assert is_splat_file(run)
    read = read_splats(run)
    for name, value in read.as_dict().items():
        expected = getattr(model, name)
        if name == "quats":  # of any length
            value, expected = (torch.nn.functional.normalize(x) for x in (value, expected))
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


def test_each_checkpoint_of_a_run(run):
    """nerfstudio keeps all with --save-only-latest-checkpoint False; the newest is read, or the one that is named."""
    newest = run.parent / "nerfstudio_models" / "step-000000300.ckpt"
    content = torch.load(newest, weights_only=False)
    means = content["pipeline"]["_model.gauss_params.means"]
    older = newest.with_name("step-000000200.ckpt")
    torch.save(content | {"pipeline": damaged(content["pipeline"], "means", means - 1)}, older)
    assert checkpoint_of(run) == newest
    assert checkpoint_of(run, 200) == older
    torch.testing.assert_close(read_splats(newest).means, read_splats(run).means)
    assert not torch.allclose(read_splats(older).means, read_splats(run).means)
    assert read_nerfstudio_run(older).config == run
    with pytest.raises(UserError, match=r"no .*step-000000250\.ckpt.*these steps: 200, 300.*Choose one of these"):
        checkpoint_of(run, 250)


def test_settings_are_data(run, tmp_path):
    read = read_nerfstudio_run(run)
    assert (read.capture, read.method, read.antialiased) == (tmp_path / "capture", "splatfacto", True)
    assert str(read.cameras) == "sparse/0"
    assert not (run.parent / "trap").exists()


def test_a_world_that_nerfstudio_had_turned_is_turned_again(tmp_path, model, to_theirs):
    """Its transforms.json is in another world than dataparser_transforms.json begins in."""
    capture = tmp_path / "capture"
    capture.mkdir()
    applied = [[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]]
    (capture / "transforms.json").write_text(json.dumps({"applied_transform": applied, "frames": []}))
    run = write_run(tmp_path / "run", model, to_theirs, capture, parser="Nerfstudio")
    x, y, z = model.means.T
    torch.testing.assert_close(read_splats(run).means, torch.stack([x, z, -y], 1), atol=1e-5, rtol=0)


def test_what_others_let_torch_unpickle_does_not_matter(run):
    """The plugin for nerfstudio allows numpy's own classes, under the names that are passed over here."""
    allowed = [np.dtype, type(np.dtype("float64")), np.float64(0).__reduce__()[0]]
    with torch.serialization.safe_globals(allowed):
        assert len(read_splats(run)) == 20
        assert set(torch.serialization.get_safe_globals()) >= set(allowed)
    assert not {*allowed} & {*torch.serialization.get_safe_globals()}


class Trap:
    def __reduce__(self):
        return print, ("unpickled",)


def test_no_pickle_is_executed(run, capsys):
    content = torch.load(run.parent / "nerfstudio_models" / "step-000000300.ckpt", weights_only=False)
    save(run.parent, content | {"trap": Trap()})
    with pytest.raises(UserError, match="other objects are never unpickled"):
        read_splats(run)
    assert "unpickled" not in capsys.readouterr().out


def damaged(tensors, name, value):
    return {**tensors, f"_model.gauss_params.{name}": value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("means", torch.zeros(20, 2)),
        ("opacities", torch.zeros(20)),
        ("scales", torch.zeros(19, 3)),
        ("features_rest", torch.zeros(20, 7, 3)),
        ("features_dc", torch.tensor(0.0)),
    ],
)
def test_shapes_that_are_wrong_are_named(run, name, value):
    path = run.parent / "nerfstudio_models" / "step-000000300.ckpt"
    content = torch.load(path, weights_only=False)
    save(run.parent, content | {"pipeline": damaged(content["pipeline"], name, value)})
    with pytest.raises(UserError, match=rf"has {name} of the shape"):
        read_splats(run)


def test_tensors_that_claim_more_than_the_file_holds(run):
    path = run.parent / "nerfstudio_models" / "step-000000300.ckpt"
    content = torch.load(path, weights_only=False)
    huge = {name: torch.zeros(1, 1).expand(10**10, width) for name, width in (("means", 3), ("quats", 4))}
    tensors = {f"_model.gauss_params.{name}": value for name, value in huge.items()}
    save(run.parent, content | {"pipeline": content["pipeline"] | tensors})
    with pytest.raises(UserError, match="of the shape"):
        read_splats(run)


def test_runs_of_other_methods_are_named(tmp_path, model, to_theirs):
    run = write_run(tmp_path / "run", model, to_theirs, tmp_path, method="nerfacto")
    save(run.parent, {"step": 3, "pipeline": {"_model.field.weight": torch.zeros(3)}})
    with pytest.raises(UserError, match=r"has no features_dc, .*means.*: it is of the method nerfacto"):
        read_splats(run)


def test_a_checkpoint_that_is_cut(run):
    path = run.parent / "nerfstudio_models" / "step-000000300.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="cannot be read"):
        read_splats(run)
    path.unlink()
    with pytest.raises(UserError, match=r"There is no step-\*\.ckpt"):
        read_splats(run)


BOMB = "\n".join(f"k{i}: &k{i} [{','.join([f'*k{i - 1}'] * 9 if i else ['x'] * 9)}]" for i in range(10))
BOMB += "\ndata: x\npipeline: {datamanager: {dataparser: {_target: *k9}}, model: {}}\nmethod_name: x"
BOMBS = [BOMB, BOMB.replace("data: x", "data: *k9"), BOMB.replace("name: x", "name: *k9")]


@pytest.mark.parametrize("text", ["a: [", "- 1", "pipeline: 3", "[" * 5000, "a: &a [*a]", "x" * 2_000_000, *BOMBS])
def test_settings_that_are_none(run, text):
    run.write_text(text)
    with pytest.raises(UserError, match="cannot be read as settings of nerfstudio"):
        read_splats(run)


@pytest.mark.parametrize("content", [{}, {"scale": 0, "transform": []}, {"scale": 1, "transform": [[1] * 4] * 3}])
def test_transforms_that_are_none(run, content):
    (run.parent / "dataparser_transforms.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"dataparser_transforms\.json cannot be read"):
        read_splats(run)
