"""``DifixPipeline``: Difix as users of diffusers expect it, and the plain call for the rest of the program."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from difix3d.devices import half
from difix3d.difix.attention import keep_prompt, mix_views
from difix3d.difix.fast import fix_fast, is_usual, prepare
from difix3d.difix.frozen import check_frozen
from difix3d.difix.inputs import alike, check_call, check_fix, from_tensors, one_each, to_references, to_tensors
from difix3d.difix.lean import make_lean
from difix3d.difix.references import Last, Prepared, ReferenceCache
from difix3d.difix.sizes import CELL, fit, in_tiles, pad, ready, usual_tile
from difix3d.difix.step import TIMESTEP, encode, fix_views, unguided
from difix3d.difix.vae import DifixVAE
from difix3d.difix.weights import PROMPTS, SD_TURBO, load_parts
from difix3d.errors import UserError
from difix3d.gpu.recorded import Made, Recordings

PROMPT = "remove degradation"


class DifixPipeline(DiffusionPipeline):
    """Cleans renders of a 3D model in one diffusion step, looking at reference photos if there are any.

    Wu et al., "Difix3D+: Improving 3D Reconstructions with Single-Step Diffusion Models", CVPR 2025, section 4.1.

    >>> pipe = DifixPipeline.from_pretrained("nvidia/difix_ref").to("cuda")
    >>> pipe("remove degradation", image=render, ref_image=photo).images[0]

    Deterministic: latents are the mode of their posterior, unless a ``generator`` is passed to draw them.
    """

    model_cpu_offload_seq = "text_encoder->unet->vae"  # type: ignore[assignment]
    _optional_components = ["text_encoder", "tokenizer"]  # noqa: RUF012 (diffusers' own name and type)

    def __init__(
        self, vae: DifixVAE, unet: UNet2DConditionModel, scheduler: Any, text_encoder: Any = None, tokenizer: Any = None
    ):
        super().__init__()
        self.register_modules(vae=vae, unet=unet, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer)
        mix_views(unet)
        self.prompt_embeds: dict[str, Tensor] = {}  # filled by optimize(), or instead of a text encoder
        self.reference_cache: ReferenceCache | None = None
        self.frozen_references = False
        self._fix_views = fix_views
        self._fix_fast: Callable[..., Tensor] | None = None
        self.prepared = Prepared()
        self._ready = Last()
        self.recordings = Recordings()

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        torch_dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        base: str | Path = SD_TURBO,
        trust_remote_code: bool = False,  # noqa: ARG003 (published calls pass it; there is no code to trust)
        **hub: Any,
    ) -> "DifixPipeline":
        """Loads weights from a hub id, a folder, or a ``.pkl`` checkpoint on top of ``base``; see ``weights.py``.

        Raises:
            UserError: unreadable files; keys that are missing, unexpected or misshapen.
        """
        parts = load_parts(pretrained_model_name_or_path, base, torch_dtype or torch.float32, device, **hub)
        prompt_embeds = parts.pop("prompt_embeds", {})
        pipe = cls(**parts)
        pipe.prompt_embeds = prompt_embeds
        return pipe

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:  # type: ignore[override]
        """Writes a folder that :meth:`from_pretrained` reads: safetensors, with the LoRA or (fused) without.

        A pipeline that never had a text encoder writes the embeddings of its prompts instead.
        """
        if self.reference_cache is not None:
            raise UserError("This pipeline has released its text encoder", "", "Save it before optimize()")
        super().save_pretrained(save_directory, **kwargs)
        if self.text_encoder is None:
            embeds = {prompt: embed.detach().cpu().contiguous() for prompt, embed in self.prompt_embeds.items()}
            save_file(embeds, Path(save_directory) / PROMPTS)

    def to(self, *args: Any, **kwargs: Any) -> "DifixPipeline":
        """As diffusers has it; what was recorded of the weights where they were is forgotten."""
        self.recordings.clear()
        return super().to(*args, **kwargs)

    def fuse(self) -> "DifixPipeline":
        """Merges the decoder's LoRA into its weights."""
        self.vae.fuse()
        return self

    def optimize(
        self,
        dtype: torch.dtype | None = None,
        compile: bool = False,
        prompt: str = PROMPT,
        frozen_references: bool = False,
        **options: Any,
    ) -> "DifixPipeline":
        """The fast path, for one constant prompt, and not for training: same images up to rounding.

        Fuses the LoRA, and each doubling with its convolution; embeds the prompt, releases the text encoder; keeps the
        last references' latents, and what else can be kept of them (:mod:`difix3d.difix.fast`); puts channels last; on
        CUDA takes bf16, Triton's kernels for what torch does slowly, and records the step as a CUDA graph, for each of
        the latest image sizes.

        Args:
            dtype: default bf16 on CUDA (fp16 before Ampere), unchanged elsewhere.
            compile: compile the step with ``torch.compile`` instead: minutes for each image size.
            frozen_references: they do not look at the image, so that their keys and values are made once: half of the
                UNet's work, and not the same images. ``difix3d fix --check-frozen`` says how far off they are.
            options: passed to ``torch.compile``; default ``mode="reduce-overhead"``, which records CUDA graphs.
        """
        cuda = self.device.type == "cuda"
        self.fuse().vae.merge_doublings()
        with torch.no_grad():
            self.prompt_embeds = {prompt: self.embed(prompt)}
            if is_usual(self.unet):
                keep_prompt(self.unet, self.prompt_embeds[prompt][None].to(self.unet.device, self.unet.dtype))
                self._fix_fast = fix_fast
        make_lean(self.unet)
        make_lean(self.vae)
        self.frozen_references = frozen_references and check_frozen(self.vae, self.unet)
        self.register_modules(text_encoder=None, tokenizer=None)
        dtype = dtype or (half(self.device) if cuda else self.unet.dtype)
        if dtype != self.unet.dtype:
            self.to(dtype)
        self.unet.to(memory_format=torch.channels_last)
        self.vae.to(memory_format=torch.channels_last)
        self.reference_cache = ReferenceCache()
        self.recordings.clear()
        if compile:
            how = {"dynamic": False} | (options or {"mode": "reduce-overhead"})
            self._fix_views = torch.compile(fix_views, **how)
            self._fix_fast = self._fix_fast and torch.compile(fix_fast, **how)
        return self

    def embed(self, prompt: str) -> Float[Tensor, "L D"]:
        """The text encoder's output for a prompt; after :meth:`optimize` only for the prompt given there."""
        if prompt in self.prompt_embeds:
            return self.prompt_embeds[prompt]
        if self.text_encoder is None:
            raise UserError(f"The text encoder was released, and {prompt!r} is not the prompt it was optimized for")
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self.text_encoder(tokens.input_ids.to(self._execution_device))[0][0]

    @torch.no_grad()
    def encode_references(self, references: Float[Tensor, "B V 3 H W"]) -> Float[Tensor, "B V C h w"]:
        """Latents of references (0..1), which :meth:`fix` takes in their place: encode once, fix many images."""
        views = pad(unguided(self.vae, references)).to(*self._place)
        return self.recorded(lambda views: encode(self.vae, views)[0], [views], "encode")

    @property
    def _moves(self) -> bool:
        """Whether accelerate brings the parts to the device when they are used."""
        return any(hasattr(part, "_hf_hook") for part in (self.vae, self.unet))

    @property
    def _place(self) -> tuple[torch.device, torch.dtype]:
        """Where it computes, and in what. diffusers' own properties look through all modules: milliseconds a call."""
        weight = self.unet.conv_in.weight
        return self._execution_device if self._moves else weight.device, weight.dtype

    def _prepare(self, latents: Float[Tensor, "N C h w"], timestep: int, frozen: bool) -> list[Float[Tensor, "N ..."]]:
        """What the fast step keeps of references."""
        return self.recorded(
            lambda latents: prepare(self.unet, latents, timestep, frozen), [latents], "prepare", timestep, frozen
        )

    def recorded(self, function: Callable[..., Made], tensors: Sequence[Tensor], *kind: Any) -> Made:
        """``function(*tensors)``, on a GPU as a CUDA graph (:mod:`difix3d.gpu.recorded`) if this pipeline is
        :meth:`optimize` d and its weights stay where they are."""
        if self.reference_cache is None or self._moves:
            return function(*tensors)
        return self.recordings(function, tensors, kind)

    @torch.no_grad()
    def fix(
        self,
        images: Float[Tensor, "B 3 H W"],
        references: Float[Tensor, "B V _ _ _"] | None = None,
        *,
        guide: Float[Tensor, "B K H W"] | None = None,
        prompt: str | Sequence[str] = PROMPT,
        timestep: int = TIMESTEP,
        generator: torch.Generator | None = None,
        tile: int | None = None,
    ) -> Float[Tensor, "B 3 H W"]:
        """Fixes a batch of images (0..1) of one size, any size; they keep it.

        Args:
            references: V for each image: pixels [B,V,3,H,W] in 0..1, or latents from :meth:`encode_references`.
            guide: what :func:`~difix3d.geometry.warp.guide` gives, for models that take it (``vae.guide`` channels) in
                place of references; ``None`` for full alpha, and nothing to look at.
            prompt: one for all images, or one for each.
            timestep: how far the image is taken to be from clean, 0..999; Difix is trained at 199.
            generator: draws the latents of each image and its references, in this order; default is their mode.
            tile: larger images are fixed in overlapping tiles of at most so many pixels a side; see ``usual_tile``.

        Returns:
            Images in 0..1, of the dtype and on the device of ``images``.
        """
        size = images.shape[-2:]
        device, dtype = self._place
        tile = usual_tile(device) if tile is None else tile
        check_fix(self.vae, images, references, guide, timestep, tile)
        if self.vae.guide and guide is None:
            guide = images.new_zeros(len(images), self.vae.guide, *size)
            guide[:, 0] = 1
        if guide is not None:
            images = torch.cat([images, guide], 1)
        prompts = [prompt] * len(images) if isinstance(prompt, str) else list(prompt)
        embeds = {p: self.embed(p) for p in prompts}
        context = torch.stack([embeds[p] for p in prompts]).to(device, dtype)
        alpha_bar = float(self.scheduler.alphas_cumprod[timestep])

        def run(images: Tensor, references: Tensor | None) -> Tensor:
            parts = self.vae, self.unet, images.to(dtype)
            if generator is not None:
                return fix_views(*parts, references, context, timestep, alpha_bar, generator).float()
            if self._fix_views is not fix_views:
                torch.compiler.cudagraph_mark_step_begin()
            if self._fix_fast is None or self.reference_cache is None:
                return self._fix_views(*parts, references, context, timestep, alpha_bar).float()
            kept, how = None, (timestep, self.frozen_references)
            if references is not None:
                known = self.reference_cache.each(references, self.encode_references)
                kept = self.prepared(self._prepare, known, len(images), *how)
            if self._fix_fast is not fix_fast:
                return self._fix_fast(*parts, kept, timestep, alpha_bar, how[1]).float()

            def step(images: Tensor, *kept: Tensor) -> Tensor:
                return fix_fast(self.vae, self.unet, images, kept or None, timestep, alpha_bar, how[1]).float()

            return self.recorded(step, [images.to(dtype), *(kept or ())], "fix", *how)

        if references is not None:
            references = self._ready(partial(ready, device=device, dtype=dtype), [references], device, dtype)
        # A single tiny view is padded further: deep in a narrow UNet, normalisation would be left with one value.
        alone = references is None and len(images) == 1 and max(size) <= 4 * CELL
        padded = pad(images, 5 * CELL if alone else CELL)
        fixed = in_tiles(run, padded.to(device, torch.float32), references, tile)
        self.maybe_free_model_hooks()
        return fixed[..., : size[0], : size[1]].clamp(0, 1).to(images)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] = PROMPT,
        image: Any = None,
        ref_image: Any = None,
        num_inference_steps: int = 1,
        timesteps: Sequence[int] = (TIMESTEP,),
        guidance_scale: float = 0.0,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        resize: str = "pad",
        tile: int | None = None,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Fixes one image, or a list or batch of them, of any sizes.

        Args:
            prompt: one for all images, or one for each.
            image: PIL, numpy, torch, or a list; see :func:`~difix3d.difix.inputs.to_tensors`.
            ref_image: references; see :func:`~difix3d.difix.inputs.to_references`. Those of another size than their
                image are scaled and cropped to it.
            num_inference_steps, timesteps, guidance_scale: 1, one time step, no guidance: Difix takes a single step.
            generator: draws the latents, default is their mode; or one generator for each image.
            output_type: ``"pil"``, ``"np"`` or ``"pt"``; see :func:`~difix3d.difix.inputs.from_tensors`.
            resize: ``"pad"`` keeps each pixel and each image's size; ``"published"`` shrinks to a multiple of 8, as the
                published pipeline does.
            tile: see :meth:`fix`.
        """
        check_call(self.vae, ref_image, num_inference_steps, timesteps, guidance_scale, resize)
        images = to_tensors(image, shrink=resize == "published")
        references = to_references(ref_image, len(images), shrink=resize == "published")
        prompts = one_each(prompt, len(images), "prompts")
        generators = one_each(generator, len(images), "generators")
        fixed = list(images)
        for members in alike(images, references, apart=isinstance(generator, Sequence)):
            sets = [[fit(ref, *images[i].shape[1:]) for ref in references[i]] for i in members]
            batch = self.fix(
                torch.stack([images[i] for i in members]),
                torch.stack([torch.stack(some) for some in sets]) if sets[0] else None,
                prompt=[prompts[i] for i in members],
                timestep=timesteps[0],
                generator=generators[members[0]],
                tile=tile,
            )
            for i, result in zip(members, batch, strict=True):
                fixed[i] = result
        output = from_tensors(fixed, output_type)
        return ImagePipelineOutput(images=output) if return_dict else (output,)


def load_difix(
    source: str | Path = "nvidia/difix_ref",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    base: str | Path = SD_TURBO,
) -> DifixPipeline:
    """Difix ready to use: in 16 bits on the GPU if there is one, else in fp32 on the CPU; see ``from_pretrained``."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (half(device) if device.type == "cuda" else torch.float32)
    return DifixPipeline.from_pretrained(source, torch_dtype=dtype, device=device, base=base).to(device)
