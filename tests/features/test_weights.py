import hashlib
from pathlib import Path

import pytest
import torch

from difix3d.errors import UserError
from difix3d.features import VGG16, weights
from difix3d.features.weights import VARIABLE, WeightFile, fill, load, locate

SHAPES = {"features.0.weight": (2, 3), "features.0.bias": (2,)}


class Stranger:
    def __reduce__(self):
        return print, ("code of a weight file was run",)


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty cache of torch hub, and no folder of the user's own."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def published(tmp_path):
    """A file on a "server", as torchvision publishes: with a classifier, and the hash in its name."""
    state = {key: torch.randn(shape) for key, shape in SHAPES.items()} | {"classifier.0.weight": torch.zeros(4, 4)}
    source = tmp_path / "server" / "source.pth"
    source.parent.mkdir()
    torch.save(state, source)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    path = source.rename(source.with_name(f"net-{digest[:8]}.pth"))
    return WeightFile(path.name, path.as_uri(), digest[:8], smaller=("net_half.pth",)), state, path


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_is_downloaded_once_checked_and_found_again(published, hub, capsys):
    file, state, server = published
    tensors = load(file, SHAPES)
    assert tensors.keys() == SHAPES.keys()  # the classifier is left out
    assert all(torch.equal(tensors[key], state[key]) for key in SHAPES)
    assert [path.name for path in hub.iterdir()] == [file.name]
    assert file.url in capsys.readouterr().err
    server.unlink()
    assert locate(file) == hub / file.name
    assert not capsys.readouterr().err


def test_the_users_folder_comes_first_and_may_hold_half_precision(published, hub, tmp_path, monkeypatch):
    file, state, _ = published
    monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    half = {key: value.half() for key, value in state.items() if "classifier" not in key}
    (tmp_path / "own").mkdir()
    torch.save(half, tmp_path / "own" / "net_half.pth")
    tensors = load(file, SHAPES)
    assert not hub.exists()
    for key in SHAPES:
        assert tensors[key].dtype == torch.float32
        assert torch.equal(tensors[key], half[key].float())


def test_offline_the_error_says_which_file_from_where_and_what_to_do(published, hub):
    file, _, server = published
    server.unlink()
    with pytest.raises(UserError, match=r"not whole on this machine") as error:
        load(file, SHAPES)
    assert file.name in str(error.value)
    assert file.url in str(error.value)
    assert VARIABLE in str(error.value)
    assert list(hub.iterdir()) == []


def test_a_folder_that_does_not_exist_is_not_passed_over(published, hub, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "wieghts"))
    with pytest.raises(UserError, match="wieghts, which is no folder"):
        load(published[0], SHAPES)
    assert not hub.exists()


def test_a_download_with_another_hash_is_not_kept(published, hub):
    file, _, server = published
    server.write_bytes(b"a login page")
    with pytest.raises(UserError, match="hash"):
        load(file, SHAPES)
    assert list(hub.iterdir()) == []


@pytest.mark.parametrize("own", [True, False])
def test_a_file_with_another_hash_is_named(published, hub, tmp_path, monkeypatch, own):
    file, _, server = published
    if own:
        monkeypatch.setenv(VARIABLE, str(tmp_path / "own"))
    path = put((tmp_path / "own" if own else hub) / file.name, b"cut off")
    if not own:
        server.unlink()
    with pytest.raises(UserError, match="SHA-256.*Delete it" if own else "not whole.*cannot be downloaded") as error:
        load(file, SHAPES)
    assert str(path if own else file.url) in str(error.value)
    assert path.read_bytes() == b"cut off"


def test_a_damaged_file_of_torch_hub_is_downloaded_again(published, hub, capsys):
    file, state, _ = published
    path = put(hub / file.name, b"cut off")
    tensors = load(file, SHAPES)
    assert all(torch.equal(tensors[key], state[key]) for key in SHAPES)
    assert f"{path} is damaged" in capsys.readouterr().err


def test_without_a_home_nothing_is_put_into_the_working_folder(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "~/.cache/torch/hub")
    with pytest.raises(UserError, match="no home folder.*Set HOME"):
        load(published[0], SHAPES)
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {**s, "features.0.bias": torch.zeros(7)}, r"features.0.bias is \(7,\), not \(2,\)"),
        (lambda s: {"features.0.bias": s["features.0.bias"]}, r"features.0.weight is missing, not \(2, 3\)"),
        (lambda s: [s], r"does not fit: .* and 1 more"),
        (lambda s: {**s, "x": Stranger()}, "cannot be read"),
    ],
)
def test_a_file_that_does_not_fit_is_named(published, tmp_path, monkeypatch, capsys, change, words):
    file, state, _ = published
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    torch.save(change(state), tmp_path / "net_half.pth")
    with pytest.raises(UserError, match=words) as error:
        load(file, SHAPES)
    assert "net_half.pth" in str(error.value)
    assert "code of a weight file" not in capsys.readouterr().out


def test_a_file_cut_off_is_named(published, tmp_path, monkeypatch):
    file, _, server = published
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    put(tmp_path / "net_half.pth", server.read_bytes()[:300])
    with pytest.raises(UserError, match="cannot be read"):
        load(file, SHAPES)


def test_a_network_is_filled_frozen_and_in_evaluation_mode(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    state = VGG16().state_dict() | {"classifier.0.weight": torch.zeros(2, 2)}
    torch.save(state, tmp_path / "vgg16_features_fp16.pth")
    network = fill(VGG16(), weights.VGG16)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not network.training


def test_the_published_names_carry_their_hashes():
    assert (weights.VGG16.sha256, weights.ALEXNET.sha256, weights.INCEPTION.sha256) == (
        "397923af",
        "7be5be79",
        "6726825d",
    )
    assert weights.INCEPTION.url.startswith("https://github.com/mseitzer/pytorch-fid/releases/download/")
