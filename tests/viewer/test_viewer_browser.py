"""The viewer in a real browser: Chromium without a window, driven by Playwright; WebGL in software."""

import io
import os
import time

import numpy as np
import pytest
import torch
from chromium import chromium
from fake_browser import until
from PIL import Image
from redden import Redden

pytestmark = pytest.mark.skipif(
    "DIFIX3D_BROWSER_TESTS" not in os.environ,
    reason="WebGL in software starves beside other tests: set DIFIX3D_BROWSER_TESTS=1 on a quiet machine",
)
SIZE = {"width": 680, "height": 400}
PANEL = 335
"""Column where the panel begins."""
OPTIONS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--hide-scrollbars"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(executable_path=chromium(), args=OPTIONS, timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def fixer():
    return Redden()


@pytest.fixture(scope="module")
def viewer(viewed_run, fixer):
    from difix3d.training.load import load_run
    from difix3d.viewer import Viewer, model_of_run

    viewer = Viewer(model_of_run(load_run(viewed_run, device="cpu"), viewed_run, fixer, ""), port=0)
    yield viewer
    viewer.close()


def visit(browser, viewer):
    """Opens a page; returns it with its session once it has a picture."""
    before = set(viewer.sessions)
    page = browser.new_page(viewport=SIZE)
    page.set_default_timeout(120_000)
    page.set_default_navigation_timeout(120_000)
    page.goto(viewer.url)
    until(lambda: set(viewer.sessions) - before, 60)
    session = viewer.sessions[max(set(viewer.sessions) - before)]
    until(lambda: session.view.status.content, 60)
    page.locator(".mantine-Notification-closeButton").first.click()  # viser's warning of software WebGL
    return page, session


@pytest.fixture(scope="module")
def visited(browser, viewer):
    """A page that the tests share: to load one takes seconds."""
    page, session = visit(browser, viewer)
    yield page, session
    page.close()


def canvas(page):
    """The picture left of the panel."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot(timeout=120_000))).convert("RGB"))[:, :PANEL].astype(int)


def settle(page, condition, seconds=120.0):
    """Waits until the picture meets the condition; returns it."""
    deadline = time.monotonic() + seconds
    while not condition(image := canvas(page)):
        assert time.monotonic() < deadline, "the picture did not become what it should"
        page.wait_for_timeout(250)  # each look costs a frame in software
    return image


def at_rest(page):
    """The picture once it no longer changes."""
    last = canvas(page)
    page.wait_for_timeout(700)
    while not np.array_equal(last, image := settle(page, colourful)):
        last = image
        page.wait_for_timeout(700)
    return last


def colourful(image):
    """The toy scene: Gaussians of all colours before black."""
    return image.std() > 30 and np.ptp(image, axis=2).mean() > 8


def choose(page, label, option):
    """Picks an option of a drop-down by mouse."""
    page.get_by_label(label, exact=True).first.click()
    page.get_by_role("option", name=option, exact=True).click()


def test_layers_splats_split_and_hot_keys(visited, fixer):
    page, session = visited
    assert page.title()
    first = at_rest(page)

    choose(page, "Layer", "depth")
    settle(page, lambda image: np.abs(image - first).mean() > 10)
    page.mouse.click(5, 200)
    page.keyboard.press("l")
    until(lambda: session.view.layer.value == "coverage")
    grey = settle(page, lambda image: np.ptp(image, axis=2).mean() < 3)
    assert grey.std() > 30
    session.view.layer.value = "colour"
    settle(page, lambda image: np.abs(image - first).mean() < 1)

    choose(page, "Renderer", "browser (splats)")
    until(lambda: session._splats._node is not None)
    page.wait_for_timeout(300)
    splats = settle(page, lambda image: colourful(image) and np.abs(image - first).mean() > 0.2)
    assert (
        np.corrcoef(splats[::4, ::4].ravel(), first[::4, ::4].ravel())[0, 1] > 0.8
    )  # the same things, drawn elsewhere
    session.view.renderer.value = "server"
    settle(page, lambda image: np.abs(image - first).mean() < 1)

    session.view.trust.value = False
    choose(page, "Fixer", "split")
    session.view.share.value = 0.3  # where the panel does not hide it
    border, middle = round(0.3 * SIZE["width"]), SIZE["height"] // 2
    settle(page, lambda image: image[:, border + 10 :, 0].min() > 240 and image[:, : border - 20, 0].min() < 50)
    page.mouse.move(border, middle)
    page.mouse.down()
    page.mouse.move(border - 60, middle, steps=6)
    page.mouse.move(border - 100, middle, steps=6)
    page.mouse.up()
    until(lambda: session.view.share.value < 0.2)
    settle(page, lambda image: image[:, border - 80 :, 0].min() > 240)
    assert fixer.count == 1
    session.view.fixing.value = "off"


def test_a_click_on_a_frustum_flies_there(visited, viewer):
    from difix3d.geometry.poses import look_at
    from difix3d.geometry.warp import project
    from difix3d.viewer.viser_scene import c2w_of, canvas_camera, put

    page, session = visited
    before, pose, fov = session.client.camera.position.copy(), c2w_of(session.client.camera), session.client.camera.fov
    camera_view = viewer.model.camera_list.captured[-1]
    page.get_by_role("tab", name="Cameras").click()
    page.get_by_label("Show eval cameras").check()
    until(lambda: camera_view.title in session.cameras._frustums)
    # look at that frustum from behind, so that it lies left of the panel
    target = camera_view.camera.c2w[0]
    picture = target[:3, 3] + 0.06 * target[:3, 2]
    behind = look_at(
        target[:3, 3] - 0.5 * target[:3, 2] + 0.05 * target[:3, 1], picture + 0.15 * target[:3, 0], -target[:3, 1]
    )
    flights, deadline = session.cameras._flight, time.monotonic() + 120
    while session.cameras._flight == flights and time.monotonic() < deadline:  # until it is drawn there is none to hit
        put(session.client, behind, fov)
        page.wait_for_timeout(1500)
        seen = canvas_camera(session.client.camera, SIZE["width"])
        if not torch.allclose(seen.c2w[0], behind, atol=0.01):
            continue  # the browser reported where it was before
        pixel, _ = project(picture, seen)
        assert float(pixel[0]) < PANEL
        page.mouse.click(float(pixel[0]) + 3, float(pixel[1]) + 3)
    until(lambda: session.cameras.followed is not None)
    arrived = session.cameras.followed.view
    page.wait_for_timeout(500)
    assert arrived.group == "eval"
    np.testing.assert_allclose(session.client.camera.position, arrived.camera.centers[0].numpy(), atol=0.02)
    assert np.linalg.norm(session.client.camera.position - before) > 0.1
    choose(page, "Compare", "side by side")
    settle(page, lambda image: (np.abs(image - 51).max(2) < 6).mean() > 0.15)  # bars above and below
    page.mouse.move(200, 300)
    page.mouse.down()
    page.mouse.move(260, 340, steps=5)
    page.mouse.up()
    until(lambda: session.cameras.followed is None)
    session.cameras.show["eval"].value = False
    put(session.client, pose, fov)
    settle(page, colourful)


def test_two_clients_and_one_that_comes_back(browser, visited, viewer):
    (first, one), (second, two) = visited, visit(browser, viewer)
    settle(first, colourful)
    settle(second, colourful)
    choose(second, "Layer", "coverage")
    settle(second, lambda image: np.ptp(image, axis=2).mean() < 3)
    assert colourful(canvas(first))
    second.reload()
    until(lambda: set(viewer.sessions) - {one.client.client_id, two.client.client_id})
    until(lambda: len(viewer.sessions) == 2)
    settle(second, colourful)  # a client that comes back begins anew
    assert not two.loop.is_alive()
    assert one.loop.is_alive()
    second.close()
    until(lambda: len(viewer.sessions) == 1)
