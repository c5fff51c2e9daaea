"""The training loop of Difix, on ``accelerate``: one process or many."""

import math
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, replace

import torch
from accelerate.utils import gather_object
from diffusers.training_utils import EMAModel
from torch import Tensor

from difix3d.console import Bar, RunningMean
from difix3d.difix.pipeline import DifixPipeline
from difix3d.difix_training.batch import Augmentation, Batch
from difix3d.difix_training.config import DifixOptimConfig, TrainDifixConfig
from difix3d.difix_training.dataset import Crops, numbers, read_pairs, stream, usable
from difix3d.difix_training.folder import (
    MODEL,
    begun_folder,
    check_folder,
    check_trained_on,
    identity,
    record,
    recorded,
)
from difix3d.difix_training.losses import loss_terms
from difix3d.difix_training.publish import export, model_card, push
from difix3d.difix_training.start import DifixStep, accelerator, start_pipeline
from difix3d.difix_training.state import load_state, state
from difix3d.difix_training.validate import evenly, means, validate
from difix3d.errors import UserError
from difix3d.gaussians.checkpoint import load_newest, save_checkpoint
from difix3d.images import read_image
from difix3d.interrupt import interruptible
from difix3d.limits import check_limits
from difix3d.metrics import LPIPS


class DifixTrainer:
    """Trains Difix on pairs, into one folder: ``config.yaml``, ``checkpoints/``, ``metrics.json``, ``eval/``, and the
    model itself in ``difix/``.

    Args:
        config: what to do.

    Raises:
        UserError: pairs, weights or folder cannot be used.
    """

    def __init__(self, config: TrainDifixConfig):
        check_limits(config)
        self.config = config
        self.folder = config.output_dir
        self.accelerator = accelerator(config)
        self.main = self.accelerator.is_main_process
        check_folder(config)
        pairs = read_pairs(config.data)
        self.pipe = start_pipeline(config)
        self.layers = self.pipe.vae.layers
        found = {split: usable(some, config.references, config.skip_bad, self.layers) for split, some in pairs.items()}
        self.pairs = {split: good for split, (good, _) in found.items()}
        self.faults = [text for _, faults in found.values() for text in faults]
        if not self.pairs["train"]:
            raise UserError(f"{config.data} holds no pair to train on", 'They stand under "train"')
        together = self.accelerator.num_processes * config.batch_size * config.accumulate
        self.trained_on = {"pairs": identity(self.pairs), "step_pairs": together}

        device = self.accelerator.device
        self.lpips = LPIPS("vgg").to(device) if config.loss.lpips > 0 or config.loss.gram > 0 else None
        prompts = sorted({pair.prompt for pairs in self.pairs.values() for pair in pairs})
        with torch.no_grad():
            self.prompts = {prompt: self.pipe.embed(prompt).to(device) for prompt in prompts}
        self.step_module = DifixStep(self.pipe, config.trainable, config.checkpointing)
        self.trained = self.step_module.trained()
        self.model = self.accelerator.prepare(self.step_module)
        optim = config.optim
        self.optimizer = torch.optim.AdamW(
            self.trained.values(),
            lr=optim.lr,
            betas=optim.betas,
            weight_decay=optim.weight_decay,
            fused=device.type == "cuda",  # else a copy of all gradients is made
        )
        self.ema = EMAModel(self.trained.values(), decay=optim.ema) if optim.ema > 0 else None
        self.first = self._resume() if config.resume else 0
        self.interrupted = 0

    def train(self) -> DifixPipeline:
        """Trains to the last step, or until a signal (``interrupted``) asks for an end; validates, saves, exports."""
        with begun_folder(self.config) if self.main else nullcontext():
            self._train()
        self.accelerator.end_training()
        return self.pipe

    def _train(self) -> None:
        config, done = self.config, self.first
        scores = recorded(self.folder, done)
        if config.tracker != "none":
            self.accelerator.init_trackers("tensorboard" if config.tracker == "tensorboard" else "difix")
        with (
            Bar("train Difix", config.steps, first=self.first, shown=self.main) as bar,
            interruptible() as signalled,
            closing(self.batches()) as batches,
        ):
            self._describe(bar)
            if done > 0 and not scores and self._scored(done):  # it was stopped, or killed, before
                scores = self._score(done, bar)
            stop, loss = False, RunningMean(0.95)
            while done < config.steps and not stop:
                losses = self.step([next(batches) for _ in range(config.accumulate)], done)
                done += 1
                bar.step(done, f"loss {loss(sum(losses.values())):.4f}")
                self.accelerator.log({f"loss/{name}": value for name, value in losses.items()}, done)
                stop = self._any(signalled() > 0)
                last = done == config.steps
                if last or stop or done % config.save_every == 0:
                    self.save(done)
                if self._scored(done) and not stop:
                    scores = self._score(done, bar)
            self.interrupted = signalled()
            if self.main:
                self._export(done, scores, bar)

    def _scored(self, step: int) -> bool:
        """Whether the test pairs are due after a step."""
        every = self.config.eval_every
        return bool(self.pairs["test"] and every) and (step == self.config.steps or step % every == 0)

    def _score(self, step: int, bar: Bar) -> dict[str, float]:
        scores = self.validate(step)
        bar.print(f"step {step:,}: " + ", ".join(f"{name} {value:.4g}" for name, value in scores.items()))
        return scores

    def batches(self) -> Generator[Batch, None, None]:
        """The batches of this process from the first step on."""
        config, processes = self.config, self.accelerator.num_processes
        crops = Crops(
            self.pairs["train"],
            config.resolution,
            references=config.references,
            max_scale=config.max_scale,
            flip=config.flip,
            augment=Augmentation(config.shuffle_channels, config.color_jitter, config.identity_prob, config.plain_prob),
            layers=self.layers,
            seed=config.seed,
        )
        span = (self.first * config.accumulate, config.steps * config.accumulate)
        groups = numbers(*span, config.batch_size, self.accelerator.process_index, processes)
        return stream(crops, groups, config.workers)

    def step(self, batches: list[Batch], step: int) -> dict[str, float]:
        """One step of the optimiser on some batches. Returns the terms of the loss: means over batches and processes.

        Raises:
            UserError: the loss is NaN or infinite.
        """
        config, device = self.config, self.accelerator.device
        generator = torch.Generator().manual_seed((config.seed << 32) + step)  # the same in all processes
        totals: dict[str, Tensor] = {}
        if float(torch.rand((), generator=generator)) < config.refix_prob:
            batches = [self.fixed_once(batch) for batch in batches]
        for number, batch in enumerate(batches, 1):
            context = torch.stack([self.prompts[prompt] for prompt in batch.prompts])
            waits = self.accelerator.no_sync(self.model) if number < len(batches) else nullcontext()
            with waits:
                fixed = self.model(batch.images.to(device), batch.references.to(device), context)
                photos = batch.photos.to(device)
                terms = loss_terms(fixed.float(), photos, self.lpips, config.loss, step, generator)
                self.accelerator.backward(torch.stack(list(terms.values())).sum() / len(batches))
            for name, value in terms.items():
                totals[name] = totals.get(name, 0) + value.detach() / len(batches)
        losses = {name: float(value) for name, value in self.accelerator.reduce(totals, "mean").items()}
        if not math.isfinite(sum(losses.values())):
            raise UserError(
                f"The loss became {losses} at step {step + 1}",
                f"The last good checkpoint in {self.folder / 'checkpoints'} was kept",
                "Lower --optim.lr and go on with --resume",
            )
        torch.nn.utils.clip_grad_norm_(self.trained.values(), config.optim.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, config.steps, config.optim)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.step(self.trained.values())
        return losses

    def validate(self, step: int) -> dict[str, float]:
        """Scores on test pairs, shared out over the processes; pictures and ``metrics.json``."""
        config = self.config
        test = evenly(self.pairs["test"], config.eval_pairs)
        shown = frozenset(pair.id for pair in evenly(test, config.eval_pictures))
        folder = self.folder / "eval" / f"step_{step:06d}"
        own = test[self.accelerator.process_index :: self.accelerator.num_processes]
        with self.averaged():
            inputs = (config.resolution, config.references, self.layers)
            scores = validate(self.fix, own, inputs, self.lpips, folder, shown)
        scores = sorted(gather_object(scores), key=lambda score: score.id)
        found = means(scores)
        self.accelerator.log({f"test/{name}": value for name, value in found.items()}, step)
        if self.main:
            record(self.folder, {"step": step, **found, "pairs": [asdict(score) for score in scores]})
            pictures = {path.stem: read_image(path)[None] for path in sorted(folder.glob("*.png"))}
            for tracker in self.accelerator.trackers:
                tracker.log_images(pictures, step, **({"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}))
        return found

    def fixed_once(self, batch: Batch) -> Batch:
        """The same batch with fixed renders."""
        return replace(batch, images=torch.cat([self.fix(batch), batch.images[:, 3:]], 1))

    @torch.no_grad()
    def fix(self, batch: Batch) -> Tensor:
        """Fixed images [B,3,H,W] in 0..1, on the CPU."""
        device = self.accelerator.device
        context = torch.stack([self.prompts[prompt] for prompt in batch.prompts])
        with self.accelerator.autocast():
            fixed = self.step_module(batch.images.to(device), batch.references.to(device), context)
        return fixed.float().clamp(0, 1).cpu()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the weights are their moving average, if one is kept."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.trained.values())
        self.ema.copy_to(self.trained.values())
        try:
            yield
        finally:
            self.ema.restore(self.trained.values())

    def state(self) -> dict[str, Tensor]:
        """All that training goes on from; the rest is in the config."""
        return state(self.trained, self.optimizer, self.ema)

    def save(self, step: int) -> None:
        """Writes a checkpoint, from the first process."""
        if self.main:
            extra = {"init": self.config.fixer, **self.trained_on}
            save_checkpoint(self.folder / "checkpoints", step, self.state(), extra, keep=self.config.keep_checkpoints)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        found = load_newest(self.folder / "checkpoints")
        if found is None:  # stopped before the first
            return 0
        path, (step, tensors, extra) = found
        check_trained_on(self.trained_on, extra, path)
        if step > self.config.steps:
            raise UserError(f"The run in {self.folder} is at step {step} already", f"--steps is {self.config.steps}")
        try:
            load_state(tensors, self.trained, self.optimizer, self.ema, step)
        except KeyError as error:
            raise UserError(
                f"{path} is the checkpoint of another network: {error.args[0]}",
                "It goes on only as it was configured",
                "Resume with the options of the run's config.yaml (--fixer, --trainable, --lora-rank, --optim.ema)",
            ) from error
        return step

    def _any(self, flag: bool) -> bool:
        """Whether any process raises the flag: all stop at the same step."""
        if self.accelerator.num_processes == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), "sum") > 0)

    def _describe(self, bar: Bar) -> None:
        moved = sum(p.numel() for p in self.trained.values())
        resumed = f", resumed at step {self.first:,}" if self.first else ""
        bar.print(
            f"training {moved / 1e6:.1f} of {sum(p.numel() for p in self.step_module.parameters()) / 1e6:.1f} million "
            f"parameters on {len(self.pairs['train']):,} pairs ({len(self.pairs['test']):,} for tests), "
            f"{self.accelerator.num_processes} x {self.accelerator.device} into {self.folder}{resumed}"
        )
        for text in self.faults:
            bar.print(f"left out: {text}")

    def _export(self, step: int, scores: dict[str, float], bar: Bar) -> None:
        target = self.folder / MODEL
        counts = {split: len(pairs) for split, pairs in self.pairs.items()}
        with self.averaged():
            export(self.pipe, target, model_card(self.config, step, counts, scores), self.config.save_as == "fp16")
        bar.print(f"the model: {target}")
        if step < self.config.steps:
            bar.print(f"stopped at step {step:,}; go on with: --resume --output-dir {self.folder}")
        elif self.config.push_to_hub is not None:
            bar.print(f"uploaded: {push(target, self.config.push_to_hub, self.config.private)}")


def learning_rate(step: int, steps: int, config: DifixOptimConfig) -> float:
    """The rate of a step, counted from 0: it rises linearly, then stays or falls along a cosine."""
    rate = config.lr * min(1.0, (step + 1) / max(config.warmup, 1))
    if config.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / steps))
    return rate
