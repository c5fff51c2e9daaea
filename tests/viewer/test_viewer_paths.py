"""Camera paths and targets, recorded in the viewer."""

import threading

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from fake_browser import until

from difix3d.errors import UserError
from difix3d.scene.pathfile import read_path


def test_recorded_path_is_saved_and_rendered(serve, join, redden, viewed_run):
    fixed_frames = []

    def counting(degraded):
        for image in redden(degraded):
            fixed_frames.append(image)
            yield image

    viewer = serve(fixer=counting)
    browser, session = join(viewer)
    path, session.view.trust.value = session.path, False
    with pytest.raises(UserError, match="0 view.*at least 2"):
        path.path()
    path.add()
    browser.move((0.5, -2, 0.3))
    until(lambda: session.client.camera.position[0] == 0.5)
    path.add()
    path.frames.value, path.side.value, path.fps.value = 5, 160, 12.0
    path.save()
    saved = read_path(viewed_run / "paths" / "path.json", viewer.model.scene)
    assert torch.allclose(saved.cameras.c2w, path.path().cameras.c2w, atol=1e-5)
    assert saved.cameras.size == (160, 106)
    for fix in (False, True):
        path.fix.value = fix
        path._run(path.render)
        assert "5 frames written" in session.page._line.content
    plain, fixed = (imageio.mimread(viewed_run / "renders" / name) for name in ("path.mp4", "path_plus.mp4"))
    assert len(plain) == len(fixed) == 5
    assert np.mean(fixed) != pytest.approx(np.mean(plain), abs=1)
    path.every.value = 4
    path._run(path.render)
    assert len(imageio.mimread(viewed_run / "renders" / "path_plus.mp4")) == 5
    assert len(fixed_frames) == 5 + 2  # all of them, then the first and the fifth
    path.every.value = 0
    path._run(path.render)
    assert "1 to 100" in session.page._line.content
    path.frames.value = 2
    path._run(path.preview)
    assert session.client.camera.position[0] > 0.0
    path.name.value = "../../elsewhere"
    path._run(path.render)
    assert "cannot be called" in session.page._line.content
    assert not list(viewed_run.parent.glob("elsewhere*"))
    path.kind.value = "interp"
    assert len(path.path().cameras) == 2
    path.kind.value = "loaded file"
    with pytest.raises(UserError, match="No file is loaded"):
        path.path()


def test_a_path_can_be_loaded_and_a_render_stopped(serve, join, viewed_run):
    import viser

    _browser, session = join(serve())
    path = session.path
    path.kind.value, path.frames.value, path.side.value = "interp", 400, 160
    path.name.value = "long"
    path.save()
    path.load(viser.UploadedFile("long.json", (viewed_run / "paths" / "long.json").read_bytes()))
    assert path.kind.value == "loaded file"
    assert len(path.path().cameras) == 400
    worker = threading.Thread(target=path._run, args=(path.render,))
    worker.start()
    until(lambda: path.bar.value > 1)
    path._going.clear()
    worker.join(10)
    assert "there is no video" in session.page._line.content
    assert not list((viewed_run / "renders").glob("*long*"))
    with pytest.raises(UserError, match="Expecting|JSON|read"):
        path.load(viser.UploadedFile("bad.json", b"{"))


def test_targets_are_written_for_training(serve, join, viewed_run):
    from difix3d.training.rounds import choose_targets

    viewer = serve()
    _browser, session = join(viewer)
    targets = session.cameras.targets
    with pytest.raises(UserError, match="no target cameras"):
        targets.save()
    targets.place()
    targets.place()
    targets.remove(1)
    targets.save()
    cameras = choose_targets(str(viewed_run / "paths" / "targets.json"), viewer.model.scene)
    assert len(cameras) == 1
    np.testing.assert_allclose(cameras.centers[0].numpy(), session.client.camera.position, atol=1e-5)
    assert cameras.size == (48, 40)
