"""Training batches of nerfstudio: of its photos without some of them, and of novel views."""

import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import torch
from nerfstudio.data.datamanagers.full_images_datamanager import FullImageDatamanager
from torch import Tensor

from difix3d.integrations.nerfstudio.world import World
from difix3d.types import View

Batch = tuple[Any, dict[str, Any]]
"""Rays or a camera, and what they should see."""


class Batches(ABC):
    """What a training takes from a data manager.

    Attributes:
        color_loss: the term of the model's loss that compares colours.
    """

    color_loss: str

    def __init__(self, datamanager: Any, world: World):
        self.datamanager = datamanager
        self.world = world

    @abstractmethod
    def photos(self, step: int, left_out: Collection[int]) -> Batch:
        """A batch of the photos but for some, by their indices in the data set."""

    @abstractmethod
    def novel(self, view: View) -> tuple[Batch, float]:
        """A batch of a novel view, and the factor of its colour loss."""

    @contextmanager
    def repeated(self, seed: int) -> Iterator[None]:
        """Within, photos and pixels follow from the seed; afterwards all randomness goes on as if nothing had been."""
        state = random.getstate()
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            random.seed(seed)
            torch.manual_seed(seed)
            try:
                yield
            finally:
                random.setstate(state)


class RayBatches(Batches):
    """Rays, for Nerfacto."""

    color_loss = "rgb_loss"

    def photos(self, step: int, left_out: Collection[int]) -> Batch:
        rays, batch = self.datamanager.next_train(step)
        if left_out:
            keep = ~torch.isin(batch["indices"][:, 0], torch.tensor(sorted(left_out)).to(batch["indices"]))
            rays = rays[keep.to(rays.origins.device)]
            batch = {
                name: value[keep.to(value.device)] if isinstance(value, Tensor) and len(value) == len(keep) else value
                for name, value in batch.items()
            }
        return rays, batch

    def novel(self, view: View) -> tuple[Batch, float]:
        """Pixels are drawn in proportion to their confidence, and the loss has its mean: so each pixel counts as much
        as it is trusted, and no ray is spent on one that does not count."""
        device = self.datamanager.device
        assert view.confidence is not None
        confidence = view.confidence.flatten()
        count = self.datamanager.get_train_rays_per_batch()
        width = view.image.shape[1]
        chosen = torch.multinomial(confidence, count, replacement=True)
        coords = torch.stack([chosen // width, chosen % width], 1) + 0.5
        rays = self.world.to_nerfstudio(view.camera.to(device)).generate_rays(
            torch.zeros((count, 1), dtype=torch.long, device=device), coords=coords.to(device)
        )
        image = view.image.reshape(-1, 3)[chosen].to(device)
        return (rays, {"image": image}), view.weight * float(confidence.mean())


class ImageBatches(Batches):
    """Whole images, for Splatfacto."""

    color_loss = "main_loss"

    def photos(self, step: int, left_out: Collection[int]) -> Batch:
        while True:
            first = self.datamanager.train_unseen_cameras[0]
            batch = self.datamanager.next_train(step)
            if first not in left_out:
                return batch

    def novel(self, view: View) -> tuple[Batch, float]:
        device = self.datamanager.device
        assert view.confidence is not None
        camera = self.world.to_nerfstudio(view.camera.to(device))
        mask = view.confidence[..., None].to(device)
        return (camera, {"image": view.image.to(device), "mask": mask}), view.weight

    @contextmanager
    def repeated(self, seed: int) -> Iterator[None]:
        names = ("train_unseen_cameras", "random_generator", "train_unsampled_epoch_count")
        before = {name: copy(value) for name, value in vars(self.datamanager).items() if name in names}
        try:
            with super().repeated(seed):
                yield
        finally:
            vars(self.datamanager).update(before)


def batches_of(datamanager: Any, world: World) -> Batches:
    """By the kind of the data manager."""
    kind = ImageBatches if isinstance(datamanager, FullImageDatamanager) else RayBatches
    return kind(datamanager, world)
