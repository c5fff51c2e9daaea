"""The viewer's server: one session for each browser, and the events of a training."""

import logging
import threading
import time

import numpy as np
import viser
from jaxtyping import Float
from torch import Tensor

from difix3d.scene.paths import focus_of
from difix3d.training import Trainer
from difix3d.training.events import Event, Finished, Paused, RoundDone, Stepped
from difix3d.viewer.fixing import FixQueue
from difix3d.viewer.frames import FrameLoop
from difix3d.viewer.guard import Guard, OneLine, free_port, wait_for_answer
from difix3d.viewer.session import Session
from difix3d.viewer.training_tab import Monitor
from difix3d.viewer.viewer_model import ViewerModel, bounds, copy, model_of_trainer
from difix3d.viewer.viser_scene import fov_of

SHARE = 0.03
"""Of the time, at most, that idle clients take from a training; their pictures are renewed as rarely as that needs."""
SOONEST = 1.0
"""Seconds between two new models, at least."""
PATIENCE = 10.0
"""Seconds to wait for a thread that ends."""

logging.getLogger("websockets.server").addFilter(OneLine())


class Viewer:
    """Serves a model until it is closed; a listener of the trainer's events if there is one.

    Args:
        viewer_model: what is shown.
        monitor: what is known of the run.
        host: address to listen on; on others than this machine's own, a browser needs the token in ``url``.
        port: to listen on; the next free one is taken if it is not.
        origins: further places whose pages may use it, as of a proxy: ``https://machine.example``.
        trainer: whose model is shown while it is trained.

    Raises:
        UserError: nothing can listen there, or an origin is none.
    """

    def __init__(
        self,
        viewer_model: ViewerModel,
        monitor: Monitor | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        origins: tuple[str, ...] = (),
        trainer: Trainer | None = None,
    ):
        self.model = viewer_model
        self.monitor = monitor or Monitor()
        self.trainer = trainer
        self.fix_queue = None if viewer_model.fixer is None else FixQueue(viewer_model)
        self.sessions: dict[int, Session] = {}
        self._lock = threading.Lock()
        self._spent = 0.0
        self._renewed = time.monotonic()
        self._closed = threading.Event()
        others = set(threading.enumerate())
        port = free_port(host, port)
        guard = Guard(host, origins)
        with guard.watching():
            self.server = viser.ViserServer(host=host, port=port, label="difix3d", verbose=False)
        self._servers = [thread for thread in threading.enumerate() if thread not in others]
        # viser's tunnel to the open net, whoever asks for it: ``--host`` is for that
        self.server.request_share_url = lambda *_, **__: None  # type: ignore[method-assign]
        self.server.gui.configure_theme(show_share_button=False, control_width="medium", dark_mode=True)
        self._aim_first_view()
        viewer_model.on_change.append(self._wake_all)
        self.server.on_client_disconnect(self._left)
        self.server.on_client_connect(self._joined)
        port = self.server.get_port()
        self.url = (
            f"http://{f'[{host}]' if ':' in host else host}:{port}{f'/?token={guard.token}' if guard.token else ''}"
        )
        wait_for_answer(host, port)
        self._panels = threading.Thread(target=self._keep_panels, daemon=True, name="viewer panels")
        self._panels.start()

    def __call__(self, event: Event) -> None:
        """Listens to the training, in its thread; between two steps, so that the model is whole."""
        self.monitor(event)
        match event:
            case Stepped(step) if self._due():
                self._renew(step)
            case RoundDone(step) | Paused(step) | Finished(step):
                self._renew(step)

    def wait(self) -> None:
        """Until the viewer is closed, or Ctrl-C."""
        while not self._closed.wait(0.5):  # without an end, a Ctrl-C just before it would be seen at the next one only
            pass

    def close(self) -> None:
        """Lets all clients go, and waits for what is being drawn: a program must not end in the middle of it."""
        self._closed.set()
        with self._lock:  # after a session that is being built, the last one
            sessions, self.sessions = list(self.sessions.values()), {}
            for session in sessions:
                session.close()
        if self.fix_queue is not None:
            self.fix_queue.close()
        for thread in threading.enumerate():
            if thread is self._panels or (isinstance(thread, FrameLoop) and thread.closed):  # also of clients that left
                thread.join(PATIENCE)
        self.server.stop()
        for thread in self._servers:  # viser waits a second only, and Python aborts if one prints while it ends
            thread.join(PATIENCE)

    def _joined(self, client: viser.ClientHandle) -> None:
        with self._lock:  # so that close() does not miss the threads of this client
            if self._closed.is_set():
                return
            self.sessions[client.client_id] = Session(client, self.model, self.fix_queue, self.monitor, self._busy)
        if client.client_id not in self.server.get_clients():  # gone before it was listed
            self._left(client)

    def _left(self, client: viser.ClientHandle) -> None:
        with self._lock:  # to the end, so that close() waits for the threads of this client too
            session = self.sessions.pop(client.client_id, None)
            if session is not None:
                session.close()

    def _all(self) -> list[Session]:
        with self._lock:
            return list(self.sessions.values())

    def _wake_all(self) -> None:
        for session in self._all():
            session.loop.wake()

    def _busy(self, seconds: float) -> None:
        """Adds what a picture cost that no move asked for."""
        self._spent += seconds

    def _due(self) -> bool:
        """Whether a new model may be shown: somebody looks, and the last one has been paid for."""
        waited = time.monotonic() - self._renewed
        return bool(self.sessions) and waited > max(SOONEST, self._spent / SHARE)

    def _renew(self, step: int) -> None:
        assert self.trainer is not None
        start = time.monotonic()
        self._spent = 0.0
        self.model.replace(copy(self.trainer.gaussians), step)
        self._renewed = time.monotonic()
        self._spent += self._renewed - start

    def _keep_panels(self) -> None:
        """Brings the panels up to date, away from the training's thread."""
        rounds = -1
        while not self._closed.wait(1.0):
            written = self.model.camera_list.written
            for session in self._all():
                session.refresh(cameras=written != rounds)
            rounds = written

    def _aim_first_view(self) -> None:
        """New clients begin at the first photo's camera; without photos, in front of the model."""
        first, scene = self.server.initial_camera, self.model.scene
        if len(scene.train):
            camera = scene.cameras[int(scene.train[0])]
            position, forward = camera.centers[0], camera.c2w[0, :3, 2]
            distance = float((focus_of(scene) - position) @ forward)
            first.position, first.look_at = _numpy(position), _numpy(position + max(distance, 0.1) * forward)
            first.fov = fov_of(camera)
            return
        low, high = bounds(self.model.snapshot.gaussians)
        means = self.model.snapshot.gaussians.means.detach().cpu()
        middle = means.median(0).values if len(means) else (low + high) / 2
        spread = float((means - middle).norm(dim=1).median()) if len(means) else 1.0
        first.look_at = _numpy(middle)
        first.position = _numpy(middle + 3 * spread * middle.new_tensor([0.6, -0.8, 0.4]))


def watch(trainer: Trainer, host: str = "127.0.0.1", port: int = 8080, origins: tuple[str, ...] = ()) -> Viewer:
    """A viewer of a training; it listens from now on."""
    monitor = Monitor(trainer.control, can_fix=trainer.fixer is not None)
    viewer = Viewer(model_of_trainer(trainer), monitor, host=host, port=port, origins=origins, trainer=trainer)
    trainer.listeners = [*trainer.listeners, viewer]
    return viewer


def _numpy(point: Float[Tensor, "3"]) -> Float[np.ndarray, "3"]:
    return point.double().cpu().numpy()
