"""nerfstudio's own viewer: novel cameras in the scene, fixed frames as an output."""

import socket

import numpy as np
import pytest

pytest.importorskip("nerfstudio", reason='needs pip install -e ".[nerfstudio]"')


@pytest.fixture
def viewed(start, splat_config):
    """A training with nerfstudio's viewer, one round of which is done, and a browser there."""
    from ns_browser import Browser

    config = splat_config
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    config.vis, config.viewer.quit_on_train_completion = "viewer+tensorboard", True
    config.viewer.websocket_host, config.viewer.websocket_port = "127.0.0.1", port
    config.save_config()
    config.pipeline.distill.__dict__.update(gate="off", min_alpha=0.0)
    trainer = start(config)
    browser = Browser(port)
    yield trainer, browser
    browser.close()
    trainer.viewer_state.viser_server.stop()


def novel(browser):
    return {name for name in browser.frustums() if name.startswith("/novel_cameras/")}


@pytest.mark.slow
def test_novel_cameras_and_fixed_frames_are_shown(viewed):
    from ns_browser import until

    trainer, browser = viewed
    trainer.train()
    count = len(trainer.pipeline.rounds.pseudo)
    until(lambda: len(novel(browser)) == count)
    assert len([name for name in browser.frustums() if name.startswith("/cameras/")]) == 9

    browser.set("Max res", 64)
    browser.fly_to("/novel_cameras/camera_00000")
    until(lambda: "rgb_fixed" in browser.outputs())
    until(lambda: browser.picture() is not None and browser.picture().shape[1] == 64)
    rendered = browser.picture().astype(float)
    browser.set("Output type", "rgb_fixed")
    until(lambda: browser.picture().shape[1] == 64 and np.abs(browser.picture() - rendered).mean() > 1)


@pytest.mark.slow
def test_without_a_fixer_the_viewer_lives_on(viewed, monkeypatch, capsys):
    """A viewer of a run whose weights are gone: it says so and shows frames as they are rendered."""
    from ns_browser import until

    from difix3d.errors import UserError

    trainer, browser = viewed
    pipeline = trainer.pipeline
    trainer._init_viewer_state()
    asked = []

    def lost():
        asked.append(0)
        raise UserError("There are no weights", "They are needed", "Bring them")

    monkeypatch.setattr(pipeline.model.fix, "_fixer", lost)
    browser.set("Max res", 64)
    until(lambda: "/cameras/camera_00000" in browser.frustums())
    browser.fly_to("/cameras/camera_00000")
    until(lambda: "rgb_fixed" in browser.outputs())
    browser.set("Output type", "rgb_fixed")
    until(lambda: asked)
    before = len(browser.of("BackgroundImageMessage"))
    browser.fly_to("/cameras/camera_00003")
    until(lambda: len(browser.of("BackgroundImageMessage")) > before)
    assert len(asked) == 1
    assert "frames stay as rendered. There are no weights" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.slow
def test_a_loaded_run_shows_its_novel_cameras(viewed):
    """As ``ns-viewer`` loads it: for evaluation, without rounds."""
    from nerfstudio.utils.eval_utils import eval_setup

    trainer, _ = viewed
    trainer.train()
    _, pipeline, _, _ = eval_setup(trainer.base_dir / "config.yml", test_mode="test")
    assert pipeline.rounds is None
    assert len(pipeline._novel_views()) == len(trainer.pipeline.rounds.pseudo)
