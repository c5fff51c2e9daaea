"""Curation into folders that hold something already, or cannot take it."""

import json
from dataclasses import replace

import pytest
from toy_captures import files, write_scene

from difix3d.errors import UserError
from difix3d.files import OWN


def test_broken_off_and_started_again_it_ends_with_the_same_bytes(capture, recipe, tmp_path, monkeypatch):
    from difix3d.curation import assemble, read_curated
    from difix3d.curation import curate as module

    whole, broken, strategies = tmp_path / "whole", tmp_path / "broken", ("underfit", "sparse")
    module.curate([capture], whole, recipe, strategies=strategies, device="cpu")
    assemble(whole)

    def breaks(trainings, rng):
        yield next(original(trainings, rng))
        raise KeyboardInterrupt

    original = module.STRATEGIES["sparse"]
    with monkeypatch.context() as patch:
        patch.setitem(module.STRATEGIES, "sparse", breaks)
        with pytest.raises(KeyboardInterrupt):
            module.curate([capture], broken, recipe, strategies=strategies, device="cpu")
    assert [path.name for path in broken.glob("*/.*")] == [OWN]
    assert not (broken / "toy" / "sparse").exists()
    assert module.missing_parts([capture], broken, strategies) == ["toy/sparse"]
    with pytest.raises(UserError, match="no dataset.json"):
        read_curated(broken)

    (broken / "toy" / ".work-killed").mkdir()
    before = (broken / "toy" / "underfit" / "part.json").stat().st_mtime_ns
    module.curate([capture], broken, recipe, strategies=strategies, device="cpu")
    assert (broken / "toy" / "underfit" / "part.json").stat().st_mtime_ns == before
    assemble(broken)
    assert files(broken) == files(whole)


def test_a_full_disk_leaves_no_part(capture, recipe, tmp_path, monkeypatch):
    from difix3d.curation import pairs
    from difix3d.curation.curate import curate

    def full(path, image):
        raise UserError(f"Cannot write {path} (No space left on device)")

    monkeypatch.setattr(pairs, "write_image", full)
    with pytest.raises(UserError, match="No space left"):
        curate([capture], tmp_path, recipe, strategies=["sparse"], device="cpu", skip_bad=True)
    assert files(tmp_path) == {}


def test_other_options_for_the_same_folder_are_refused(capture, curated, toy_scene, tmp_path):
    from difix3d.curation import Recipe
    from difix3d.curation.curate import curate

    with pytest.raises(UserError, match=r"curated with --max-steps 4.*one recipe"):
        curate([capture], curated.folder, Recipe(), device="cpu")
    other = str(write_scene(tmp_path / "toy", toy_scene))
    with pytest.raises(UserError, match="same name"):
        curate([capture, other], curated.folder, Recipe(), device="cpu")
    recipe = Recipe(max_steps=4, perturbations=2, max_pairs=6, psnr_min=0.0, psnr_max=99.0)
    with pytest.raises(UserError, match="was made of"):
        curate([other], curated.folder, recipe, device="cpu")


def test_a_folder_from_before_there_was_more_than_plain_3dgs_is_gone_on_with(capture, recipe, tmp_path):
    from difix3d.curation.curate import curate

    curate([capture], tmp_path, replace(recipe, plain=True), strategies=["sparse"], device="cpu")
    part = tmp_path / "toy" / "sparse" / "part.json"
    content = json.loads(part.read_text())
    assert content["recipe"].pop("plain") is True
    part.write_text(json.dumps(content))
    curate([capture], tmp_path, replace(recipe, plain=True), strategies=["sparse"], device="cpu")
    with pytest.raises(UserError, match="curated with --plain True"):
        curate([capture], tmp_path, recipe, strategies=["sparse"], device="cpu")


def test_a_folder_that_cannot_be_written(capture, recipe, tmp_path):
    from difix3d.curation.curate import curate

    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write .*Not a directory.*choose another folder"):
        curate([capture], tmp_path / "file", recipe, strategies=["sparse"], device="cpu")


def test_folders_with_the_names_of_before_are_gone_on_with(capture, recipe, tmp_path):
    """``cluster`` was called apart, and too_bad hopeless."""
    from difix3d.curation import assemble, read_curated
    from difix3d.curation.curate import curate, missing_parts

    strict = replace(recipe, plain=True, psnr_min=15.2)
    curate([capture], tmp_path, strict, strategies=["apart"], device="cpu")
    now = assemble(tmp_path)
    (tmp_path / "toy" / "cluster").rename(tmp_path / "toy" / "apart")
    part = tmp_path / "toy" / "apart" / "part.json"
    part.write_text(part.read_text().replace("cluster/", "apart/").replace("too_bad", "hopeless"))
    before = part.stat().st_mtime_ns
    curate([capture], tmp_path, strict, strategies=["cluster"], device="cpu")
    assert missing_parts([capture], tmp_path, ["cluster"]) == []
    assert part.stat().st_mtime_ns == before
    old = assemble(tmp_path)
    assert old.counts == now.counts
    assert old.counts["cluster"]["too_bad"] > 0
    assert {pair["strategy"] for pair in old.card.values()} == {"cluster"}
    (tmp_path / "card.json").write_text((tmp_path / "card.json").read_text().replace("cluster", "apart"))
    assert read_curated(tmp_path).counts == now.counts
