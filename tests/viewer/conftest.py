"""A small run, open in the viewer."""

import pytest
from fake_browser import FakeBrowser, until
from redden import Redden
from small_run import write_run

POSITION = (0.0, -2.0, 0.3)


class Skipped(pytest.Module):
    """Tests of which none can run.

    Attributes:
        reason: why.
    """

    reason: str

    def collect(self):
        pytest.skip(self.reason, allow_module_level=True)


def pytest_pycollect_makemodule(module_path, parent):
    """With an older viser than the viewer needs, as nerfstudio installs it, its tests are skipped."""
    from difix3d.errors import UserError

    try:
        import difix3d.viewer  # noqa: F401
    except UserError as error:
        module = Skipped.from_parent(parent, path=module_path)
        module.reason = str(error)
        return module


@pytest.fixture(scope="session")
def viewed_run(tmp_path_factory, toy_scene):
    return write_run(tmp_path_factory.mktemp("viewed"), toy_scene)


@pytest.fixture
def serve(viewed_run):
    """Opens viewers of the run, or of another model, and closes them."""
    from difix3d.training.load import load_run
    from difix3d.viewer import Monitor, Viewer, model_of_run

    opened = []

    def open_viewer(viewer_model=None, fixer=None, **options):
        if viewer_model is None:
            run = load_run(viewed_run, device="cpu")
            viewer_model = model_of_run(run, viewed_run, fixer, "" if fixer else "There is no fixer")
            options.setdefault("monitor", Monitor.of_run(viewed_run, run.scene))
        opened.append(Viewer(viewer_model, port=0, **options))
        return opened[-1]

    yield open_viewer
    for viewer in opened:
        viewer.close()


@pytest.fixture
def join():
    """Connects browsers without a screen; returns each with its session once it has a picture."""
    joined = []

    def connect(viewer, **options):
        before = set(viewer.sessions)
        browser = FakeBrowser(viewer.url, **{"position": POSITION, **options})
        joined.append(browser)
        until(lambda: set(viewer.sessions) - before)
        session = viewer.sessions[max(set(viewer.sessions) - before)]
        until(lambda: session.view.status.content)
        return browser, session

    yield connect
    for browser in joined:
        browser.close()


@pytest.fixture
def redden():
    return Redden()


@pytest.fixture
def pictures(monkeypatch):
    """What each client was sent, by the session's number."""
    import viser

    sent = {}

    def keep(scene, image, format="auto", *, jpeg_quality=None, depth=None):
        if isinstance(scene._owner, viser.ClientHandle):
            sent.setdefault(scene._owner.client_id, []).append((image, depth))

    monkeypatch.setattr(viser.SceneApi, "set_background_image", keep)
    return sent
