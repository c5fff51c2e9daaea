"""The toy scene as a capture, and pairs of it."""

import pytest
from toy_captures import write_scene


@pytest.fixture
def recipe():
    from difix3d.curation import Recipe

    return Recipe(max_steps=4, perturbations=2, max_pairs=6, psnr_min=0.0, psnr_max=99.0)


@pytest.fixture(scope="session")
def capture(toy_scene, tmp_path_factory):
    return str(write_scene(tmp_path_factory.mktemp("captures") / "toy", toy_scene))


@pytest.fixture(scope="session")
def curated(capture, tmp_path_factory):
    """All strategies on the toy scene."""
    from difix3d.curation import Recipe, assemble
    from difix3d.curation.curate import curate

    folder = tmp_path_factory.mktemp("pairs")
    recipe = Recipe(max_steps=4, perturbations=2, max_pairs=6, psnr_min=0.0, psnr_max=99.0)
    curate([capture], folder, recipe, device="cpu")
    return assemble(folder)
