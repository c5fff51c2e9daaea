"""The trained model in its folder and on a hub."""

import pytest

from difix3d.difix import DifixPipeline
from difix3d.difix_training import publish
from difix3d.difix_training.config import MiniConfig
from difix3d.difix_training.start import mini_difix
from difix3d.errors import UserError


def test_pushing(monkeypatch, tmp_path):
    calls = []

    class Hub:
        def create_repo(self, repository, **options):
            calls.append((repository, options))

        def upload_folder(self, **options):
            calls.append(options)

    monkeypatch.setattr(publish, "HfApi", Hub)
    assert publish.push(tmp_path, "me/difix", private=True) == "https://huggingface.co/me/difix"
    assert calls[0] == ("me/difix", {"private": True, "exist_ok": True})
    assert calls[1]["folder_path"] == tmp_path

    def refuse(self, *_args, **_options):
        raise OSError("no route")

    monkeypatch.setattr(Hub, "create_repo", refuse)
    with pytest.raises(UserError, match=r"cannot be uploaded to me/difix \(no route\).*hf upload"):
        publish.push(tmp_path, "me/difix", private=True)


def test_a_failed_export_leaves_the_old_model(tmp_path, monkeypatch):
    def full(self, folder):
        folder.mkdir()
        raise OSError("No space left on device")

    monkeypatch.setattr(DifixPipeline, "save_pretrained", full)
    (tmp_path / "difix").mkdir()
    (tmp_path / "difix" / "old").write_text("whole")
    with pytest.raises(UserError, match="No space left"):
        publish.export(
            mini_difix(MiniConfig(unet_widths=(32,) * 4, vae_widths=(32,) * 4, prompt_width=32)),
            tmp_path / "difix",
            "card",
        )
    assert [path.name for path in tmp_path.rglob("*")] == ["difix", "old"]
