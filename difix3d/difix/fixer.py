"""Difix as a :class:`~difix3d.types.Fixer`: a stream of renders in, a stream of clean images out."""

from collections.abc import Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from difix3d.devices import short_of_memory
from difix3d.difix.colors import anchor_colors
from difix3d.difix.pipeline import DifixPipeline
from difix3d.difix.references import Last
from difix3d.difix.sizes import fit
from difix3d.geometry.holes import without_holes
from difix3d.geometry.warp import guide
from difix3d.types import Degraded


class DifixFixer:
    """Fixes renders in batches, each with its references: as they were photographed, or carried into the render.

    Args:
        pipe: the model; ``pipe.optimize()`` it for speed.
        device: where it runs.
        batch: renders at a time.
        references: photos that it looks at beside each render; weights that take a guide look at all.
        anchor_colors: keep the renders' colours (:mod:`~difix3d.difix.colors`); else they are as the model leaves them.
        offload: after a stream, put the model into main memory; by default where a GPU's memory is short.
        tile: larger renders are fixed in tiles of at most so many pixels a side; default as ``pipe.fix`` has it.
    """

    def __init__(
        self,
        pipe: DifixPipeline,
        device: torch.device | str = "cpu",
        *,
        batch: int = 1,
        references: int = 1,
        anchor_colors: bool = True,
        offload: bool | None = None,
        tile: int | None = None,
    ):
        self.pipe = pipe
        self.device = torch.device(device)
        self.batch = batch
        self.references = references
        self.anchor_colors = anchor_colors
        self.offload = offload
        self.tile = tile
        self._last = Last()

    @property
    def fills_holes(self) -> bool:
        """Whether renders are given to the model :func:`~difix3d.geometry.holes.without_holes`: small ones need it."""
        return bool(self.pipe.vae.guide)

    @property
    def needs(self) -> tuple[int, int]:
        """Bytes of the weights, and of each pixel of a batch that is fixed: at its peak the decoder holds so many
        copies of its two widest layers (counted on three networks), and the latest references are kept: sixteen as
        pixels, those of two batches as the UNet takes them, with two values of its first width a latent (or, frozen,
        with about the 18 of its keys and values)."""
        weights = sum(p.nbytes for part in (self.pipe.unet, self.pipe.vae) for p in part.parameters())
        first, second, *_ = self.pipe.vae.config["block_out_channels"]
        item, cache = self.pipe.unet.dtype.itemsize, self.pipe.reference_cache
        kept = 0.0
        if cache is not None and not self.pipe.vae.guide:
            prepared = (18 if self.pipe.frozen_references else 2) * self.pipe.unet.config["block_out_channels"][0] / 64
            kept = item * (3 * (cache.entries.maxlen or 0) + 2 * self.batch * self.references * prepared)
        return weights, round(self.batch * (item * (4.6 * first + 3.8 * second) + 24) + kept)

    def __call__(self, degraded: Iterable[Degraded]) -> Iterator[Float[Tensor, "H W 3"]]:
        if not _lies_on(self.pipe.unet.conv_in.weight.device, self.device):  # moving nothing takes 58 ms
            self.pipe.to(self.device)
        try:
            for group in batches(degraded, self.batch):
                yield from self._fix(group)
        finally:
            self.pipe.recordings.make_room(self.device)
            if short_of_memory(self.device) if self.offload is None else self.offload:
                self.pipe.to("cpu")
                self.pipe.prepared.calls.clear()
                self._last = Last()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _fix(self, group: list[Degraded]) -> Float[Tensor, "B H W 3"]:
        if self.fills_holes:
            group = [without_holes(item) for item in group]
        images = torch.stack([item.rgb for item in group]).permute(0, 3, 1, 2)
        if self.pipe.vae.guide:
            guides = torch.stack([guide(item, self.pipe.vae.layers, self.pipe.vae.foreground) for item in group])
            fixed = self.pipe.fix(images, guide=guides, tile=self.tile)
        else:
            height, width = images.shape[-2:]
            photos = [[view.image for view in item.references[: self.references]] for item in group]
            fixed = self.pipe.fix(images, self._beside(photos, height, width), tile=self.tile)
        if self.anchor_colors:
            covered = torch.stack([item.coverage for item in group])
            fixed = self.pipe.recorded(anchor_colors, [fixed, images, covered], "anchor")  # many small kernels
        return fixed.permute(0, 2, 3, 1)

    def _beside(
        self, photos: list[list[Float[Tensor, "h w 3"]]], height: int, width: int
    ) -> Float[Tensor, "B V 3 H W"] | None:
        """The references of a batch in its size; for the same ones as last time the same tensor, which the pipeline
        knows again."""
        if not photos[0]:
            return None

        def fitted(*photos: Tensor) -> Tensor:
            return torch.stack([fit(photo.permute(2, 0, 1), height, width) for photo in photos]).unflatten(
                0, (count, -1)
            )

        count, flat = len(photos), [photo for some in photos for photo in some]
        return self._last(fitted, flat, count, height, width)


def _lies_on(place: torch.device, device: torch.device) -> bool:
    return place.type == device.type and device.index in (None, place.index)


def batches(degraded: Iterable[Degraded], size: int) -> Iterator[list[Degraded]]:
    """Neighbours in groups of at most ``size``, each of one image size and one number of references."""
    group: list[Degraded] = []
    for item in degraded:
        if group and _kind(item) != _kind(group[0]):
            yield group
            group = []
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _kind(item: Degraded) -> tuple[torch.Size, int]:
    return item.rgb.shape, len(item.references)
