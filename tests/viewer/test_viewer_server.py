"""The viewer's server, with browsers that have no screen."""

import itertools
import json
import socket
import threading
import time

import numpy as np
import pytest
import torch
from fake_browser import last, until

from difix3d.cli.view import ViewConfig, open_viewer
from difix3d.errors import UserError
from difix3d.gaussians import read_ply, write_ply
from difix3d.gaussians.init import InitConfig
from difix3d.images import to_uint8, write_image
from difix3d.training import TrainConfig
from difix3d.training.data import initial_gaussians
from difix3d.training.load import load_run
from difix3d.viewer import Viewer, ViewerModel, model_of_ply
from difix3d.viewer.viser_scene import canvas_camera


def test_a_client_gets_the_exact_picture(serve, join, pictures):
    viewer = serve()
    _browser, session = join(viewer)
    image, depth = last(pictures, session)
    exact = viewer.model.render(canvas_camera(session.client.camera, 640)).rgb[0]
    np.testing.assert_array_equal(image, to_uint8(exact))
    assert image.shape == (64, 96, 3)
    assert image.std() > 10
    assert depth is None  # there are no frustums that it would have to hide
    assert "96 x 64 · render" in session.view.status.content
    assert "300 Gaussians, step 10" in session.view.status.content


def test_layers_and_crop_change_the_picture(serve, join, pictures):
    browser, session = join(serve())
    seen = [last(pictures, session)[0]]
    for layer in ("depth", "coverage", "seen or invented"):
        count = len(pictures[session.client.client_id])
        browser.set(session.view.layer, layer)
        until(lambda count=count: len(pictures[session.client.client_id]) > count)
        seen.append(last(pictures, session)[0])
    assert all(np.abs(a.astype(int) - b).mean() > 5 for a, b in itertools.pairwise(seen))
    browser.set(session.crop.high, (0.0, 9.0, 9.0))
    browser.set(session.crop.on, True)
    until(lambda: " 300 " not in session.view.status.content.replace("\n", " "))
    assert 50 < int(session.view.status.content.split("\n\n")[1].split()[0]) < 250


def test_the_first_box_leaves_the_backdrop_out(serve, join, toy_scene, tmp_path):
    config = TrainConfig(init=InitConfig(dense=0, backdrop=500))
    model, settings = initial_gaussians(toy_scene, config), config.render_settings(toy_scene, 0.01, torch.device("cpu"))
    _browser, session = join(serve(ViewerModel(model, toy_scene, tmp_path, settings, step=0)))
    low, high = session.crop.low.value, session.crop.high.value
    assert -1 < min(low) < -0.8
    assert 0.8 < max(high) < 1


def test_in_motion_pictures_are_smaller_and_at_rest_they_are_whole(serve, join, pictures):
    viewer = serve()
    browser, session = join(viewer, size=(320, 200))
    session._adaptive_scale.scale = 0.3
    for x in np.linspace(0, 0.5, 12):
        browser.move((x, -2, 0.3))
        time.sleep(0.03)
    until(lambda: last(pictures, session)[0].shape[1] == 320)
    sizes = {image.shape[1] for image, _ in pictures[session.client.client_id]}
    assert min(sizes) < 200
    assert max(sizes) == 320


def test_impossible_requests_are_refused_and_the_page_lives(serve, join):
    browser, session = join(serve())
    status_line = session.page._line
    browser.set(session.view.side, 100_000)
    until(lambda: "asks for pictures of 100000 pixels. They have 160 to 1920" in status_line.content)
    until(lambda: session.view.side.value == 1920)
    browser.size = (100_000, 100_000)
    browser.move((0, -2, 0.3))
    until(lambda: "asks for 100000 x 100000 pixels. Sides are 1 to 16384" in status_line.content)
    browser.size = (96, 64)
    browser.move((0, -2, 0.3), wxyz=[0, 0, 0, 0])
    until(lambda: "a camera without a pose" in status_line.content)
    browser.move((0, -2, 0.3), fov=9.0)
    until(lambda: "a field of view of 9" in status_line.content)
    browser.move((0, -2, 0.3))
    until(lambda: not status_line.visible)
    browser.set(session.path.frames, 10_000_000)
    until(lambda: session.path.frames.value == 10_000_000)
    with pytest.raises(UserError, match="asks for 10000000 frames.*Up to 3000"):
        session.path.path()


def test_an_error_in_a_render_is_shown_and_the_next_render_takes_it_away(serve, join, monkeypatch, caplog):
    viewer = serve()
    browser, session = join(viewer)
    render = viewer.model.render

    def broken(*args, **options):
        raise RuntimeError("out of <memory>")

    monkeypatch.setattr(viewer.model, "render", broken)
    browser.move((0.1, -2, 0.3))
    until(lambda: "RuntimeError: out of \\<memory\\>" in session.page._line.content)
    assert session.loop.is_alive()
    assert "in the viewer" in caplog.text
    monkeypatch.setattr(viewer.model, "render", render)
    browser.move((0.2, -2, 0.3))
    until(lambda: not session.page._line.visible)


def test_clients_look_at_different_things_and_one_that_leaves_mid_render_does_no_harm(serve, join, monkeypatch):
    viewer = serve()
    (first, left), (second, stays) = join(viewer), join(viewer)
    first.set(left.view.layer, "depth")
    until(lambda: left.view.layer.value == "depth")
    assert stays.view.layer.value == "colour"
    rendering, go_on, render = threading.Event(), threading.Event(), viewer.model.render

    def slow(*args, **options):
        rendering.set()
        go_on.wait(10)
        return render(*args, **options)

    monkeypatch.setattr(viewer.model, "render", slow)
    first.move((0.5, -2, 0.3))
    assert rendering.wait(10)
    first.drop()
    until(lambda: len(viewer.sessions) == 1)
    go_on.set()
    until(lambda: not left.loop.is_alive())
    before = stays.view.status.content
    second.set(stays.view.side, 160)
    second.size = (320, 320)
    second.move((0.1, -2, 0.3))
    until(lambda: stays.view.status.content != before and "160 x 160" in stays.view.status.content)
    join(viewer)  # and others may come


def test_only_this_machine_unless_told_otherwise(serve):
    viewer = serve()
    assert viewer.url.startswith("http://127.0.0.1:")
    others = [info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]
    for address in set(others) - {"127.0.0.1", "127.0.1.1"}:
        with (
            pytest.raises((ConnectionError, TimeoutError)),
            socket.create_connection((address, viewer.server.get_port()), timeout=2),
        ):
            pass
    assert viewer.server.request_share_url() is None  # no tunnel to the open net, whoever asks


def test_a_ply_needs_no_scene(serve, join, viewed_run, tmp_path):
    model = load_run(viewed_run, device="cpu").gaussians
    write_ply(model, tmp_path / "model.ply")
    viewer = serve(model_of_ply(tmp_path / "model.ply", torch.device("cpu")))
    browser, session = join(viewer)
    assert "300 Gaussians" in session.view.status.content
    session.crop.low.value, session.crop.high.value = (0.0, -9.0, -9.0), (9.0, 9.0, 9.0)
    browser.set(session.crop.on, True)
    browser.set(session.crop.name, "half")
    until(lambda: session.crop.name.value == "half" and session.crop.on.value)
    session.crop.export()
    half = read_ply(tmp_path / "exports" / "half.ply")
    assert torch.allclose(half.means, model.means[model.means[:, 0] >= 0], atol=1e-6)


def test_comparison_with_the_photo(serve, join, pictures):
    viewer = serve()
    browser, session = join(viewer)
    session.cameras.show["eval"].value = True
    until(lambda: len(session.cameras._frustums) == 3)
    until(lambda: all(frustum.image is not None for frustum in session.cameras._frustums.values()))
    until(lambda: last(pictures, session)[1] is not None)  # the depth hides frustums behind things
    camera_view = session.cameras.camera_views()[1]
    session.cameras.fly_to(camera_view)
    browser.move(
        camera_view.camera.centers[0].tolist(), wxyz=session.client.camera.wxyz.tolist(), fov=session.client.camera.fov
    )
    assert session.cameras.followed.view is camera_view
    np.testing.assert_allclose(session.client.camera.position, camera_view.camera.centers[0].numpy(), atol=1e-5)
    shown = {}
    for mode, size in (("photo", (40, 60)), ("side by side", (64, 96)), ("difference", (40, 60))):
        browser.set(session.cameras.compare, mode)
        until(lambda size=size: last(pictures, session)[0].shape[:2] == size)
        shown[mode] = last(pictures, session)[0]
    middle = (shown["photo"].shape[1] - 48) // 2
    assert np.abs(shown["photo"][:, middle : middle + 48].astype(int) - camera_view.picture()).max() <= 1
    assert shown["side by side"].shape[1] / shown["side by side"].shape[0] == pytest.approx(1.5, abs=0.05)
    assert shown["difference"][:, middle : middle + 48].mean() < 5  # the model is as the photos show it
    browser.set(session.cameras.compare, "blink")
    count = len(pictures[session.client.client_id])
    until(lambda: len(pictures[session.client.client_id]) > count + 2)
    browser.move((0, -2, 0.3))
    until(lambda: session.cameras.followed is None)


@pytest.fixture
def write_round(viewed_run):
    """Writes a round into the run's folder as a training does, with one novel view or none; it is gone afterwards."""

    def write(step, c2w=None):
        if c2w is not None:
            file = viewed_run / "rounds" / f"step_{step:06d}" / "fixed" / "00.png"
            write_image(file, np.full((40, 48, 3), 80, np.uint8))
        cameras = [] if c2w is None else [c2w.tolist()]
        row = {"step": step, "decision": "keep", "gain": 0.5 if cameras else None, "cameras": cameras}
        listed.write_text(json.dumps([row]))
        return listed

    listed = viewed_run / "rounds.json"
    yield write
    listed.unlink(missing_ok=True)


def test_rounds_of_a_run_are_shown(serve, join, write_round):
    viewer = serve()
    write_round(7, viewer.model.scene.cameras.c2w[0])
    _browser, session = join(viewer)
    assert session.cameras.round.options == ("none", "round 7")
    session.cameras.round.value = "round 7"
    until(lambda: list(session.cameras._frustums) == ["round 7, novel view 0"])
    assert session.cameras.camera_views()[0].camera.size == (48, 40)


def test_a_round_is_listed_when_its_pictures_are_there(serve, join, write_round):
    """Which is later than the training tells of it: they are written meanwhile, and the row after them."""
    _browser, session = join(serve())
    time.sleep(1.5)  # the panels have been brought up to date before
    write_round(8)
    until(lambda: session.cameras.round.options == ("none", "round 8"))


def test_next_goes_on_from_a_novel_view(serve, join, write_round):
    viewer = serve()
    write_round(11, viewer.model.scene.cameras.c2w[0])
    _, session = join(viewer)
    session.cameras.show["eval"].value = True
    session.cameras.round.value = "round 11"
    until(lambda: len(session.cameras._frustums) == 4)
    session.cameras.fly_to(session.cameras.camera_views()[-1])
    assert session.cameras.followed.view.title == "round 11, novel view 0"
    session.cameras.go(-1)
    assert session.cameras.followed.view.title == session.cameras.camera_views()[2].title
    session.cameras.go(1)
    assert session.cameras.followed.view.title == "round 11, novel view 0"


def test_a_round_that_vanishes_while_it_is_shown(serve, join, write_round):
    viewer = serve()
    listed = write_round(9, viewer.model.scene.cameras.c2w[0])
    _browser, session = join(viewer)
    session.cameras.round.value = "round 9"
    until(lambda: session.cameras._frustums)
    listed.unlink()
    session.cameras.refresh()
    assert session.cameras.round.value == "none"
    assert not session.cameras._frustums


def test_splats_for_the_browser(serve, join):
    browser, session = join(serve())
    browser.set(session.view.renderer, "browser (splats)")
    until(lambda: session._splats._node is not None and session._splats._node.visible)
    assert session._splats._node.centers.shape == (300, 3)
    until(lambda: browser.received > 300 * 32)
    browser.set(session.view.renderer, "server")
    until(lambda: not session._splats._node.visible)


def test_the_command_opens_runs_and_models(viewed_run, tmp_path):
    viewer = open_viewer(ViewConfig(viewed_run, port=0, fixer="none", device="cpu"))
    try:
        assert isinstance(viewer, Viewer)
        assert viewer.fix_queue is None
        assert "no fixer" in viewer.model.why_no_fixer
    finally:
        viewer.close()
    with pytest.raises(UserError, match="There is no run in"):
        open_viewer(ViewConfig(tmp_path / "nothing"))
    with pytest.raises(UserError, match="There is no file"):
        open_viewer(ViewConfig(tmp_path / "nothing.ply"))
