"""Where a fix does not count, a novel view teaches that all stays as it was rendered."""

from dataclasses import replace

import pytest
import torch

from difix3d.distill import DistillConfig, Distiller
from difix3d.distill.pictures import TITLE, WIDTH, RoundPictures
from difix3d.images import GAP, read_image
from difix3d.scene import Views


@pytest.fixture
def run_round(toy_scene, truth):
    """A round toward two held-out cameras, by a given fixer; before a backdrop that is nowhere seen, or none."""

    def run(change, backdrop=True, **options):
        def render(camera):
            out = truth(camera)
            return replace(out, foreground=out.alpha) if backdrop else out

        def fixer(degraded):
            for item in degraded:
                yield change(item.rgb.clone())

        config, targets = DistillConfig(**options), toy_scene.cameras[toy_scene.test[:2]]
        distiller = Distiller(config, toy_scene, Views(toy_scene).__getitem__, fixer, targets=targets, max_steps=8)
        return distiller.run_round(render, distiller.steps[-1])

    return run


def left_half_brighter(image):
    image[:, :24] = (image[:, :24] + 0.06).clamp(max=1)
    return image


def test_what_does_not_count_stays_as_rendered(run_round):
    done = run_round(left_half_brighter)
    for before, after, confidence in zip(done.renders, done.pseudo.images, done.pseudo.confidence, strict=True):
        assert (confidence[:, :18] > 0).any()
        assert torch.equal(after[:, 32:], before[:, 32:])
        assert set(confidence[:, 32:].unique().tolist()) <= {0, 128}  # 0 where the model covers nothing
        assert (confidence[:, 32:] == 128).any()
        counts = (confidence > 0) & (confidence != 128)
        assert (after.int() - before.int())[counts].float().mean() > 5


def test_the_sheet_shows_what_is_held_in_blue(run_round, toy_scene, tmp_path):
    done = run_round(left_half_brighter)
    RoundPictures(done, tmp_path, Views(toy_scene).__getitem__).write(lambda: None).result()
    sheet = read_image(tmp_path / "sheet.png").astype(int)
    column = sheet[TITLE + GAP :, 3 * (WIDTH + GAP) :]
    blue = column[..., 2] - column[..., 0] > 60
    assert blue[:, WIDTH * 34 // 48 :].mean() > 0.3
    assert blue[:, : WIDTH * 18 // 48].mean() < 0.05
    grey = read_image(tmp_path / "confidence" / "00.png")
    assert (grey == grey[..., :1]).all()  # the file itself has weights


def test_views_in_which_nothing_counts_have_no_say(run_round):
    for change in (lambda image: image, lambda image: 1 - image):
        assert run_round(change).pseudo.usable == []


def test_without_a_backdrop_nothing_is_held(run_round):
    done = run_round(left_half_brighter, backdrop=False)
    for fixed, after, confidence in zip(done.fixed, done.pseudo.images, done.pseudo.confidence, strict=True):
        assert torch.equal(after, fixed)
        assert (confidence[:, 32:] == 0).all()
        assert (confidence > 0).any()


def test_without_the_gate_every_fixed_pixel_counts(run_round):
    done = run_round(left_half_brighter, gate="off")
    for confidence in done.pseudo.confidence:
        assert set(confidence.unique().tolist()) <= {0, 255}
