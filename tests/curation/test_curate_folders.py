"""Curation writes beside what people have, never over it."""

import pytest
from small_run import write_scene

from difix3d.errors import UserError


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_scene_among_the_pairs_is_left_alone(tmp_path, toy_scene, skip_bad):
    from difix3d.curation import Recipe
    from difix3d.curation.curate import curate

    scene = write_scene(tmp_path / "toy", toy_scene)
    for mine in (".git", "sparse", "photos"):
        (scene / mine).mkdir()
        (scene / mine / "mine").write_bytes(b"")
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"toy holds files that difix3d did not write.*Choose another output folder"):
        curate([str(scene)], tmp_path, Recipe(max_steps=4), strategies=["sparse"], device="cpu", skip_bad=skip_bad)
    assert files(tmp_path) == before
