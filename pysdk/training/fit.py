"""The training loop: `fit` trains a network and can be stopped, even killed, at any moment and resumed exactly.

Every random choice of step k is a function of (seed, k) alone, so a checkpoint needs no generator state and a resumed
run ends in the same weights, bit for bit, as an uninterrupted one (same machine, same number of threads).
"""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from pysdk.datasets.dataset import Dataset
from pysdk.errors import CheckpointError, NumericalError, OptionError
from pysdk.files.atomic import make_folder
from pysdk.training.checkpoint import ModelConfig, load_weights, read_json, read_tensors, save_model, save_state
from pysdk.training.diffusion import Diffusion, Loss, PredictionType
from pysdk.training.interrupt import deferred_interrupt
from pysdk.training.unet import UNet


@dataclass(frozen=True)
class FitConfig:
    """How to train.

    Attributes:
        steps: optimizer steps in all, including those before a resume.
        batch_size: images per step.
        learning_rate: AdamW's, after the warm-up.
        warmup: steps over which the learning rate rises linearly.
        weight_decay: AdamW's.
        grad_clip: largest norm of the gradient.
        ema_decay: decay of the averaged weights; smaller at the start, min(decay, (1 + k) / (10 + k)).
        loss: "simple", "vlb" or "hybrid".
        label_dropout: share of labels replaced by the null label, for classifier-free guidance.
        flip: whether images are mirrored left to right at random.
        amp: "auto" (bfloat16 on a GPU, float32 on a CPU), "bfloat16" or "off".
        save_every: steps between two training states.
        seed: makes every random choice.
    """

    steps: int = 10_000
    batch_size: int = 128
    learning_rate: float = 2e-4
    warmup: int = 500
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    loss: Loss = "simple"
    label_dropout: float = 0.1
    flip: bool = False
    amp: Literal["auto", "bfloat16", "off"] = "auto"
    save_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "save_every", "learning_rate", "grad_clip"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} is {getattr(self, name)}; expected a number above 0.")
        for name in ("warmup", "weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise OptionError(f"{name} is {getattr(self, name)}; expected at least 0.")
        for name in ("ema_decay", "label_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; expected a number in [0, 1).")
        if self.amp not in ("auto", "bfloat16", "off"):
            raise OptionError(f"amp is {self.amp!r}; expected 'auto', 'bfloat16' or 'off'.")


def seeded(seed: int, *position: int) -> torch.Generator:
    """A generator that depends on the seed and a position alone."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, *position]).generate_state(1, np.uint64)[0]))


class Batches:
    """The images of step k: shuffled once an epoch, each image once an epoch, incomplete batches left out."""

    def __init__(self, data: Dataset, config: FitConfig, null_label: int | None) -> None:
        if len(data) < config.batch_size:
            raise OptionError(f"batch_size is {config.batch_size} but there are {len(data)} images; use a smaller one.")
        self.images, self.config, self.null_label = torch.from_numpy(data.images), config, null_label
        self.labels = None if data.labels is None else torch.from_numpy(data.labels)
        self.per_epoch = len(data) // config.batch_size
        self._epoch, self._order = -1, torch.empty(0)

    def at(self, step: int) -> tuple[Tensor, Tensor | None, torch.Generator]:
        """Images float32 (B, C, H, W) in [-1, 1], labels int64 (B,) or None, and the generator of this step."""
        epoch, index = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = seeded(self.config.seed, 0, epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.images), generator=generator)
        chosen = self._order[index * self.config.batch_size :][: self.config.batch_size]
        generator = seeded(self.config.seed, 1, step)
        images = self.images[chosen].float() / 127.5 - 1
        if self.config.flip:
            mirrored = torch.rand(len(chosen), generator=generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        labels = None if self.labels is None else self.labels[chosen]
        if labels is not None and self.null_label is not None:
            dropped = torch.rand(len(chosen), generator=generator) < self.config.label_dropout
            labels = torch.where(dropped, self.null_label, labels)
        return images, labels, generator


class Trainer:
    """Network, averaged weights and optimizer of a run, with their states on disk."""

    def __init__(self, model: ModelConfig, config: FitConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.model_config, self.config, self.device = model, config, device
        self.network = UNet(model.unet).to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.diffusion = Diffusion(
            model.make_schedule(), cast(PredictionType, model.prediction_type), model.unet.learn_variance
        ).to(device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay
        )
        self.step, self.seconds = 0, 0.0
        self.history: list[tuple[int, float]] = []
        amp = {"auto": device.type == "cuda", "bfloat16": True, "off": False}[config.amp]
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=amp)

    def advance(self, images: Tensor, labels: Tensor | None, generator: torch.Generator) -> Tensor:
        """One optimizer step; returns the loss, a scalar tensor."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * min(1.0, (self.step + 1) / max(1, self.config.warmup))
        t = torch.randint(len(self.diffusion.schedule), (len(images),), generator=generator).to(self.device)
        epsilon = torch.randn(images.shape, generator=generator).to(self.device)
        # dropout draws from the global generator
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        x0 = images.to(self.device, memory_format=torch.channels_last)
        labels = None if labels is None else labels.to(self.device)
        with self.autocast:
            output = self.network(self.diffusion.q_sample(x0, t, epsilon), t.float(), labels)
        loss = self.diffusion.loss(self.config.loss, output.float(), x0, t, epsilon).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.grad_clip)
        self.optimizer.step()
        self.step += 1
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                self.average[name].lerp_(tensor, 1 - decay)
        return loss.detach()

    def save(self, run: Path) -> None:
        """Writes state and averaged model; the state before it is removed only afterwards.

        Raises:
            NumericalError: a weight is NaN or infinite; nothing was written.
        """
        broken = [name for name, tensor in self.network.state_dict().items() if not tensor.isfinite().all()]
        if broken:
            raise NumericalError(_diverged(f"{broken[0]} is no longer finite", self.step, run))
        tensors = {f"model.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        for name, parameter in self.network.named_parameters():
            tensors |= {f"adam.{key}.{name}": tensor for key, tensor in self.optimizer.state[parameter].items()}
        folder = run / "states" / f"step-{self.step:08d}"
        state = {"step": self.step, "seconds": self.seconds, "history": self.history, "identity": self._identity()}
        if not folder.exists():  # the same step is the same state
            save_state(folder, tensors, state)
        for old in states(run):
            if old != folder:
                shutil.rmtree(old)
        save_model(run, self.model_config, self.average)

    def restore(self, run: Path) -> bool:
        """Resumes from the newest state of a run; False if there is none.

        Raises:
            CheckpointError: the state is damaged or was trained with other settings.
        """
        found = states(run)
        if not found:
            return False
        try:
            self._restore(run, found[-1])
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                f"{found[-1]} is damaged ({error!r}); remove this folder to start again from what is left."
            ) from error
        return True

    def _restore(self, run: Path, folder: Path) -> None:
        state = read_json(folder / "state.json")
        changed = [key for key, value in self._identity().items() if state["identity"].get(key) != value]
        if changed:
            raise CheckpointError(
                f"{run} was started with another {changed[0]} ({state['identity'].get(changed[0])!r}, now "
                f"{self._identity()[changed[0]]!r}): give the same options to resume, or another --out."
            )
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "adam": {}}
        for name, tensor in read_tensors(folder / "state.safetensors").items():
            kind, _, rest = name.partition(".")
            groups[kind][rest] = tensor
        load_weights(self.network, groups["model"], str(folder))
        self.average = {name: groups["average"][name].to(self.device) for name in self.average}
        optimizer = self.optimizer.state_dict()
        optimizer["state"] = {
            index: {key: groups["adam"][f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for index, (name, _) in enumerate(self.network.named_parameters())
        }
        self.optimizer.load_state_dict(optimizer)
        self.step, self.seconds = state["step"], state["seconds"]
        self.history = [(int(step), float(loss)) for step, loss in state["history"]]

    def _identity(self) -> dict[str, Any]:
        """What must not change between two parts of a run; steps and save_every may."""
        free = {"steps", "save_every"}
        settings = {key: value for key, value in asdict(self.config).items() if key not in free}
        return {**settings, "model": repr(self.model_config)}


def _diverged(what: str, step: int, run: Path) -> str:
    return (
        f"Training diverged: {what} at step {step}. The last state of {run}, if there is one, is good; start another "
        "run with a smaller learning rate, a longer warmup or amp off."
    )


def states(run: Path) -> list[Path]:
    """The complete training states of a run, oldest first."""
    return sorted((run / "states").glob("step-*"))


def fit(
    data: Dataset,
    model: ModelConfig,
    config: FitConfig,
    run: Path,
    device: str = "cpu",
    progress: bool = True,
) -> Trainer:
    """Trains, or resumes training, until `config.steps`.

    Args:
        data: the training images.
        model: what to train.
        config: how to train it.
        run: folder of the run; gets `model.safetensors`, `model.json` (averaged weights) and `states/`.
        device: torch device.
        progress: whether to show a progress bar with loss and images/s.

    Returns:
        The trainer at its last step.

    Raises:
        OptionError: data and network do not fit together.
        OutputError: the folder cannot be made.
        NumericalError: the loss became NaN or infinite; the last good state is kept.
        KeyboardInterrupt: Ctrl-C, after the state was saved.
    """
    if data.images.shape[1:] != model.unet.image_shape:
        raise OptionError(
            f"The images are {data.images.shape[1:]} (C, H, W), the network takes {model.unet.image_shape}."
        )
    if model.unet.num_classes not in (None, data.num_classes):
        raise OptionError(f"The network has {model.unet.num_classes} classes, the data {data.num_classes or 0}.")
    make_folder(run)  # before the first step
    trainer = Trainer(model, config, torch.device(device))
    trainer.restore(run)
    batches = Batches(data, config, model.unet.num_classes if model.unet.null_label else None)
    bar = tqdm(total=config.steps, initial=trainer.step, unit="step", disable=not progress, dynamic_ncols=True)
    recent: list[float] = []
    mark = time.monotonic()
    with bar, deferred_interrupt() as interrupt:
        while trainer.step < config.steps:
            images, labels, generator = batches.at(trainer.step)
            loss = float(trainer.advance(images, labels if model.unet.num_classes else None, generator))
            if not np.isfinite(loss):
                raise NumericalError(_diverged(f"the loss became {loss}", trainer.step, run))
            recent.append(loss)
            now = time.monotonic()
            trainer.seconds, mark = trainer.seconds + now - mark, now
            bar.update()
            if trainer.step % 50 == 0 or trainer.step == config.steps:
                mean = sum(recent) / len(recent)
                trainer.history.append((trainer.step, mean))
                images_per_second = (bar.format_dict["rate"] or 0) * config.batch_size
                bar.set_postfix(loss=f"{mean:.4f}", images=f"{images_per_second:.0f}/s")
                recent.clear()
            if interrupt.pressed or trainer.step % config.save_every == 0:
                trainer.save(run)
            if interrupt.pressed:
                bar.write(f"Stopped at step {trainer.step}; the same command goes on from there.")
                raise KeyboardInterrupt
        # also after a run that was killed between its last state and its model
        trainer.save(run)
    return trainer
