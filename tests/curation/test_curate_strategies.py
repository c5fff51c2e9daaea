from dataclasses import replace

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def gaussians(toy_scene):
    from difix3d.gaussians import from_points

    return from_points(toy_scene.points, toy_scene.colors, opacity=0.9)


@pytest.mark.parametrize(
    ("kind", "field"), [("scales", "scales"), ("rotations", "quats"), ("opacities", "opacities"), ("prune", None)]
)
def test_a_kind_of_damage_changes_its_own_field_only(gaussians, kind, field):
    from difix3d.curation.perturb import JITTERS

    before = {name: value.clone() for name, value in gaussians.as_dict().items()}
    damaged = [JITTERS[kind](gaussians, 0.5, torch.Generator().manual_seed(seed)).as_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(value, before[name]) for name, value in gaussians.as_dict().items())
    for name, value in damaged[0].items():
        assert torch.equal(value, damaged[1][name])
        if kind == "prune":
            assert 0.3 < len(value) / len(before[name]) < 0.7
        else:
            assert torch.equal(value, before[name]) == (name != field)
    assert any(
        value.shape != damaged[2][name].shape or not value.equal(damaged[2][name]) for name, value in damaged[0].items()
    )


def test_what_is_seen_is_all_that_the_cameras_show(gaussians, toy_scene):
    from difix3d.curation.perturb import seen
    from difix3d.render import rasterize

    cameras = toy_scene.cameras[:2]
    keep = seen(gaussians, cameras, 0.01)
    assert 10 < int(keep.sum()) < len(gaussians)
    left = gaussians.map(lambda tensor: tensor[keep])
    assert torch.allclose(rasterize(left, cameras).rgb, rasterize(gaussians, cameras).rgb, atol=0.05)
    behind = replace(gaussians, means=gaussians.means + 10 * cameras.centers[0])
    assert int(seen(behind, cameras, 0.01).sum()) == 1


def test_seen_equals_the_change_of_the_picture(gaussians, toy_scene):
    """The slow twin: by how much the picture changes with a Gaussian's colour."""
    from difix3d.curation.perturb import SEEN, seen
    from difix3d.geometry.sh import SH_C0
    from difix3d.render import rasterize

    camera = toy_scene.cameras[[5]]
    grey = replace(gaussians, sh0=torch.zeros_like(gaussians.sh0), shN=gaussians.shN[:, :0])
    base, fast = rasterize(grey, camera).rgb.double().sum(), seen(gaussians, camera, 0.01)
    for index in range(0, len(gaussians), 30):
        sh0 = grey.sh0.clone()
        sh0[index] = 1 / SH_C0
        weight = float(rasterize(replace(grey, sh0=sh0), camera).rgb.double().sum() - base) / 3
        if abs(weight - SEEN) > 0.02:
            assert bool(fast[index]) == (weight > SEEN)


def test_damage_is_repeatable_and_varied(gaussians, toy_scene):
    from difix3d.curation.perturb import damage

    def details(seed):
        rng = np.random.default_rng(seed)
        return [damage(gaussians, toy_scene.cameras, 0.01, rng)[2] for _ in range(12)]

    assert details(0) == details(0) != details(1)
    kinds = ("views", "prune", "scales", "rotations", "opacities")
    assert all(any(kind in detail for detail in details(0)) for kind in kinds)


def test_sideways(toy_scene):
    from difix3d.curation.strategies import sideways

    moved = sideways(toy_scene.cameras, -0.3)
    local = toy_scene.cameras.w2c[:, :3] @ torch.cat([moved.centers, torch.ones(12, 1)], 1)[..., None]
    assert torch.allclose(local[..., 0], torch.tensor([-0.3, 0, 0]).expand(12, 3), atol=1e-5)
    assert torch.equal(moved.c2w[:, :3, :3], toy_scene.cameras.c2w[:, :3, :3])


def test_rigs(toy_scene):
    from difix3d.curation.strategies import rig
    from difix3d.types import Lens

    assert list(map(len, rig(toy_scene).values())) == [9]
    names = [f"{'left' if i % 2 else 'right'}/{photo.name}" for i, photo in enumerate(toy_scene.photos)]
    photos = tuple(replace(photo, name=name) for photo, name in zip(toy_scene.photos, names, strict=True))
    groups = rig(replace(toy_scene, photos=photos))
    assert groups == {"right": [0, 4, 8], "left": [1, 3, 5, 7, 9, 11]}
    panoramas = tuple(
        replace(photo, name=f"{i % 3}/front", lens=Lens("EQUIRECTANGULAR", (64.0, 32.0), 64, 32))
        for i, photo in enumerate(toy_scene.photos)
    )
    assert list(map(len, rig(replace(toy_scene, photos=panoramas)).values())) == [9]
    K = toy_scene.cameras.K.clone()
    K[6:, 0, 0] += 5
    groups = rig(replace(toy_scene, cameras=replace(toy_scene.cameras, K=K)))
    assert sorted(groups.values()) == [[0, 1, 3, 4, 5], [7, 8, 9, 11]]


def test_cross_trains_on_one_camera_and_renders_the_others(toy_scene, tmp_path):
    from difix3d.curation import Recipe
    from difix3d.curation.strategies import cross
    from difix3d.curation.trainings import SceneTrainings

    photos = tuple(replace(photo, name=f"{'ab'[i % 2]}/{photo.name}") for i, photo in enumerate(toy_scene.photos))
    scene = replace(toy_scene, photos=photos)
    trainings = SceneTrainings(scene, Recipe(max_steps=4), "cpu", tmp_path, lambda *_: None)
    (model,) = cross(trainings, np.random.default_rng(0))
    chosen = model.detail.removeprefix("camera ")
    assert all(not scene.photos[i].name.startswith(chosen) for i in model.render_views)
    assert all(scene.photos[i].name.startswith(chosen) for i in model.captured)
    assert len(model.render_views) + len(model.cameras) == len(scene.train)
    assert model.render(scene.cameras[0]).rgb.shape == (1, 40, 48, 3)


def test_a_damaged_model_is_shown_where_something_is_left_of_it(toy_scene, tmp_path):
    from difix3d.curation import Recipe
    from difix3d.curation.strategies import perturb
    from difix3d.curation.trainings import SceneTrainings

    recipe = Recipe(max_steps=4, perturbations=6, max_pairs=0)
    trainings = SceneTrainings(toy_scene, recipe, "cpu", tmp_path, lambda *_: None)
    models = list(perturb(trainings, np.random.default_rng(0)))
    fewer = [model for model in models if "views" in model.detail]
    assert 0 < len(fewer) < len(models)
    for model in models:
        assert len(model.render_views) == min(9, 2 * len(model.captured))
        assert set(model.captured) <= set(model.render_views)
    assert all(len(model.captured) < 9 for model in fewer)


def test_a_training_goes_on_where_it_was(toy_scene, tmp_path):
    from difix3d.curation import Recipe
    from difix3d.curation.trainings import SceneTrainings

    def trainings(name):
        (tmp_path / name).mkdir()
        return SceneTrainings(toy_scene, Recipe(max_steps=6), "cpu", tmp_path / name, lambda *_: None)

    pausing = trainings("a").training_on([0, 1, 3, 4])
    early, late = pausing.advance_to(3), pausing.advance_to(6)
    once = trainings("b").training_on([4, 3, 1, 0]).advance_to(6)
    assert torch.equal(late.means, once.means)
    assert not torch.equal(early.means, late.means)
    with pytest.raises(ValueError, match="is over"):
        pausing.advance_to(3)


def test_far_off_renders_are_of_models_that_expect_them_and_plain_ones_never_are(toy_scene, tmp_path):
    """As ``difix3d train`` does for far-off photos that are held out."""
    from difix3d.curation import Recipe
    from difix3d.curation.trainings import SceneTrainings
    from difix3d.training.dropout import RATE
    from difix3d.training.far_views import BACKDROP

    def settings(photos, **options):
        trainings = SceneTrainings(toy_scene, Recipe(max_steps=4, **options), "cpu", tmp_path, lambda *_: None)
        config = trainings.training_on(photos).trainer.config
        return config.dropout, config.init.backdrop, config.init.dense > 0

    everything = toy_scene.train.tolist()
    assert settings(everything) == (0.0, 0, True)
    assert settings(everything[:4]) == (RATE, BACKDROP, True)
    assert settings(everything[:4], plain=True) == (0.0, 0, False)


def test_renders_that_are_trained_on_again_keep_what_is_empty(cutout, middle, tmp_path):
    from difix3d.curation.strategies import _photo
    from difix3d.images import read_photo, write_image
    from difix3d.render import rasterize

    out = rasterize(middle, cutout.cameras[0], background=torch.ones(3))
    write_image(tmp_path / "a.png", _photo(out, cutout.alpha))
    assert np.abs(read_photo(tmp_path / "a.png").astype(int) - read_photo(cutout.photos[0].path)).max() <= 1
    assert _photo(out, alpha=False).shape[2] == 3
