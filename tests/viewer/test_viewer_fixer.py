"""The fixer in the viewer."""

import math
import time

import pytest
from fake_browser import last, until

from difix3d.cli.view import ViewConfig, open_viewer
from difix3d.errors import UserError


def test_the_fixer_at_rest(serve, join, pictures, redden):
    viewer = serve(fixer=redden)
    browser, session = join(viewer)
    session.view.trust.value = False
    plain, _ = last(pictures, session)
    browser.set(session.view.fixing, "on")
    until(lambda: "fix " in session.view.status.content)
    until(lambda: last(pictures, session)[0][..., 0].min() == 255)
    assert session.view._reference.visible
    assert session.view._reference_title.content.endswith(".png")
    browser.set(session.view.fixing, "split")
    until(lambda: (last(pictures, session)[0][:, :47, :] == plain[:, :47, :]).all())
    assert last(pictures, session)[0][:, 49:, 0].min() == 255
    session.view.share.value = 0.25
    until(lambda: last(pictures, session)[0][:, 30:, 0].min() == 255)
    assert redden.count == 1  # the divider alone asks for nothing
    browser.set(session.view.trust, True)
    until(lambda: redden.count == 5)  # the mean agreement takes three pictures
    browser.set(session.view.fixing, "off")
    until(lambda: (last(pictures, session)[0] == plain).all())
    until(lambda: not session.view._reference.visible)


def test_a_fixer_that_fails_leaves_the_render(serve, join):
    def broken(degraded):
        raise UserError("The fixer is broken")
        yield

    browser, session = join(serve(fixer=broken))
    browser.set(session.view.fixing, "on")
    until(lambda: "The fixer is broken" in session.page._line.content)
    assert session.loop.is_alive()
    browser.set(session.view.fixing, "off")
    until(lambda: not session.page._line.visible)


def test_in_motion_the_last_fix_is_carried_and_at_rest_all_is_fixed(serve, join, pictures, redden):
    browser, session = join(serve(fixer=redden))
    session.view.trust.value = False
    browser.set(session.view.fixing, "on")
    until(lambda: "fix " in session.view.status.content)
    until(lambda: last(pictures, session)[0][..., 0].min() == 255)
    before, seen = len(pictures[session.client.client_id]), set()
    deadline = time.monotonic() + 20
    while (len(pictures[session.client.client_id]) < before + 4 or not any("carried" in text for text in seen)) and (
        time.monotonic() < deadline
    ):
        browser.move((0.1 * math.sin(time.monotonic()), -2, 0.3))
        time.sleep(0.03)
        seen.add(session.view.status.content)
    assert any("carried from the last key frame" in text and "frames a second" in text for text in seen)
    assert any("key frame, fixed in" in text for text in seen)
    moving = [image for image, _ in pictures[session.client.client_id][before:]]
    assert min((image[..., 0] > 250).mean() for image in moving) > 0.8  # all but what comes into view
    until(lambda: "fix " in session.view.status.content)
    until(lambda: last(pictures, session)[0][..., 0].min() == 255)
    browser.set(session.view.fixing, "off")
    until(lambda: last(pictures, session)[0][..., 0].min() < 255)


def test_a_slow_fixer_is_not_asked_in_motion(serve, join, redden):
    browser, session = join(serve(fixer=redden))
    session.view.trust.value = False
    browser.set(session.view.fixing, "on")
    until(lambda: redden.count == 1)
    until(lambda: "fix " in session.view.status.content)
    session._fixes.took = 60.0
    for step in range(6):
        browser.move((0.05 * step, -2, 0.3))
        time.sleep(0.05)
    assert redden.count == 1
    until(lambda: redden.count == 2)  # at rest


@pytest.mark.slow
def test_difix_itself(viewed_run, shared, join):
    """The whole way with real (tiny) weights."""
    weights = str(shared / "golden" / "tiny_difix_ref")
    viewer = open_viewer(ViewConfig(viewed_run, port=0, fixer=weights, device="cpu"))
    try:
        browser, session = join(viewer)
        browser.set(session.view.fixing, "on")
        until(lambda: "fix " in session.view.status.content, 60)
        assert session.view._reference.visible
    finally:
        viewer.close()
