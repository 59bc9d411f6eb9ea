"""The LightningModule: network, loss, optimiser and error rates."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from alexlab import distributed
from alexlab.architecture import layers
from alexlab.config import Compile, Config, by_layer
from alexlab.errors import UserError
from alexlab.models import build_model, compiled
from alexlab.models.own import reseed
from alexlab.training.divergence import DivergenceDetector, sizes
from alexlab.training.lightning_compat import MeanLoss
from alexlab.training.optim import PaperSGD, conv1_factor, learning_rate, lost_race, steps_between


class Diverged(RuntimeError):
    """The loss or a gradient is not finite.

    `details` has the epoch and step (from 1), the loss, the layers with non-finite gradients, and the images of the
    batch as indices in the store's training split.
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


_EPOCH_METRICS = ("train_loss", "train_top1", "recent_top1")


def _first_sentence(error: BaseException) -> str:
    """PyTorch's errors go on with advice for programmers."""
    return " ".join(str(error).split(". ")[0].split()) or type(error).__name__


def accuracies(num_classes: int) -> MetricCollection:
    """Top-1 and top-5 accuracy over images, for any batch sizes; with fewer than 5 classes, top-5 is always right."""

    def top(k: int) -> MulticlassAccuracy:
        return MulticlassAccuracy(num_classes, top_k=min(k, num_classes), average="micro", validate_args=False)

    return MetricCollection({"top1": top(1), "top5": top(5)}, compute_groups=False)


def parameter_groups(network: nn.Module, config: Config) -> list[dict[str, Any]]:
    """Group the parameters that the optimiser treats the same.

    A group has `weight_decay`, `lr_factor`, `keeps_rate` (exempt from drops of the learning rate) and `is_conv1`.
    Parameters other than the weights and biases of layers (PReLU's slopes, batch normalisation) never decay.
    """
    optim = config.optim
    names, decays = _layer_names(network, config), by_layer(optim.weight_decays)
    groups: dict[tuple[float, float, bool, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        layer, _, kind = name.rpartition(".")
        is_bias = layer in names and kind == "bias"
        has_decay = layer in names and (optim.decay_biases or not is_bias)
        decay = float(decays.get(layer, optim.weight_decay)) if has_decay else 0.0
        factor = optim.bias_lr_factor if is_bias else 1.0
        is_conv1 = layer == "conv1" and (optim.conv1_cut_at is not None or optim.conv1_freeze_at is not None)
        keeps_rate = is_bias and not optim.drop_biases
        group = groups.setdefault((decay, factor, is_conv1, keeps_rate), {"params": []})
        group["params"].append(parameter)
        group.update(weight_decay=decay, lr_factor=factor, is_conv1=is_conv1, keeps_rate=keeps_rate)
    return list(groups.values())


def _layer_names(network: nn.Module, config: Config) -> set[str]:
    """The names of the layers, whose weights decay; with `model.build`, of all modules with a matrix or kernels."""
    if config.model.build is None:
        return {spec.name for spec in layers(config)}
    weights = {name: getattr(module, "weight", None) for name, module in network.named_modules()}
    return {name for name, weight in weights.items() if isinstance(weight, Tensor) and weight.dim() > 1}


class ClassificationTask(L.LightningModule):
    """Trains a network to classify; takes batches of (input [B, 3, H, W], labels [B]).

    Logs once an epoch: train_loss, train_top1_error, lr, val_loss, val_top1_error, val_top5_error (errors as
    fractions; training values are means over the epoch, with augmentation and dropout). With
    `trainer.train_error_every` it also collects `train_errors`, means over the images since the previous entry.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.network = build_model(config)
        num_classes = config.data.num_classes
        assert num_classes is not None
        self.train_loss, self.val_loss, self.test_loss = (MeanLoss() for _ in range(3))
        self.train_top1, self.recent_top1 = (
            MulticlassAccuracy(num_classes, average="micro", validate_args=False) for _ in range(2)
        )
        self.val_accuracy, self.test_accuracy = accuracies(num_classes), accuracies(num_classes)
        self.val_errors: list[float] = []  # top-1, one per epoch; the plateau schedule reads them
        self.train_errors: list[dict[str, float]] = []  # {"epoch": epochs done, "step": ..., "train_top1_error": ...}
        self.sent_per_step = 0  # bytes to other devices
        self._sent_before = 0
        self._loss: Tensor | None = None
        self._step = 0  # the current one, counted over all epochs
        self._compiled: Any = None
        self._detector, self._checked = DivergenceDetector(), list[str]()  # the names of the checked gradients

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def _training_network(self) -> Any:
        """The network, compiled if `trainer.compile` says so; evaluation uses the uncompiled one."""
        mode = self.config.trainer.compile
        if mode is Compile.none:
            return self.network
        if self._compiled is None:
            self._compiled = compiled(self.network, "reduce-overhead" if mode is Compile.graphs else None)
        return self._compiled

    def configure_optimizers(self) -> PaperSGD:
        optim = self.config.optim
        groups, is_fused = parameter_groups(self.network, self.config), self.config.trainer.fused_optimizer
        return PaperSGD(groups, optim.lr, optim.momentum, optim.weight_decay, is_fused)

    def learning_rate_of(self, epoch: int) -> float | None:
        """The learning rate of an epoch, from 0; None once the schedule has ended the run."""
        return learning_rate(self.config.optim, epoch, self.config.trainer.max_epochs, self.val_errors[:epoch])

    def ends_before(self, epoch: int) -> bool:
        """Whether the run ends before an epoch, by its schedule or its training error."""
        return self.ended_by(epoch) not in (None, "max_epochs")

    def ended_by(self, epoch: int) -> str | None:
        """Why the run ends after `epoch` epochs; None if it continues."""
        trainer = self.config.trainer
        done = [row for row in self.train_errors if row["epoch"] <= epoch]
        epochs, errors = ([row[name] for row in done] for name in ("epoch", "train_top1_error"))
        if trainer.stop_at_train_error is not None and min(errors, default=1) <= trainer.stop_at_train_error:
            return "train_error"
        if trainer.race_epochs and lost_race(epochs, errors, trainer.race_epochs):
            return "race"
        if self.learning_rate_of(epoch) is None:
            return "schedule"
        return "max_epochs" if epoch >= trainer.max_epochs else None

    def on_train_epoch_start(self) -> None:
        rate = self.learning_rate_of(self.current_epoch)
        assert rate is not None, "the previous epoch ended the run"
        factor = conv1_factor(self.config.optim, self.current_epoch, self.config.trainer.max_epochs)
        for group in self.trainer.optimizers[0].param_groups:
            conv1 = factor if group["is_conv1"] else 1.0
            if group["keeps_rate"]:  # no drop lowers the rate of this bias, but freezing conv1 freezes it, too
                group["lr"] = self.config.optim.lr * group["lr_factor"] * (conv1 > 0)
            else:
                group["lr"] = rate * group["lr_factor"] * conv1

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._sent_before = distributed.sent()

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.sent_per_step = distributed.sent() - self._sent_before

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, labels = batch
        self._step = self.current_epoch * int(self.trainer.num_training_batches) + batch_idx
        if self.config.model.build is None:
            self.network.reseed_dropout(self.config.seed, "dropout", self._step)
        else:
            reseed(self.network, self.config.seed, "dropout", self._step)
        logits = self._training_network()(inputs)
        loss = F.cross_entropy(logits, labels)
        devices = self.trainer.world_size  # they divide the batch, and their gradients are averaged
        part = 1.0 if devices == 1 else devices * len(labels) / self.trainer.datamodule.train_batch_size  # pyright: ignore[reportAttributeAccessIssue]
        self.train_loss.update(loss.detach(), part / devices)  # each step has weight 1, on any number of devices
        self.train_top1.update(logits.detach(), labels)
        self._log_train_error(logits.detach(), labels)
        self._loss = loss.detach()
        return loss * part if devices > 1 else loss

    def _log_train_error(self, logits: Tensor, labels: Tensor) -> None:
        """Add to `train_errors` if an entry is due; synchronises with the GPU only then."""
        every, steps = self.config.trainer.train_error_every, int(self.trainer.num_training_batches)
        if every is None:
            return
        self.recent_top1.update(logits, labels)
        done = self._step + 1
        if done in steps_between(self.current_epoch, steps, every):
            error = 1 - self.recent_top1.compute().item()
            self.train_errors.append({"epoch": done / steps, "step": done, "train_top1_error": error})
            self.recent_top1.reset()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Skip the update if the loss or a gradient is not finite."""
        assert self._loss is not None
        with_gradient = [(name, p.grad) for name, p in self._parameters_by_name if p.grad is not None]
        if self.config.trainer.precision == "16-mixed":
            with_gradient = []  # overflows are expected, and the gradient scaler skips the update
        self._checked = [name for name, _ in with_gradient]
        seen = sizes(self._loss, [gradient for _, gradient in with_gradient])
        if self._is_async:
            assert isinstance(optimizer, PaperSGD)
            optimizer.skip = self._detector.check(seen, self._step)
            self.end_if_diverged(wait=False)
            return
        (is_nonfinite,) = distributed.any_of(not bool(seen.isfinite().all()))  # each process sees only its own part
        if is_nonfinite:
            reports = distributed.gather_objects(self._loss_and_layers(seen.tolist()))
            loss = next((loss for loss, _ in reports if not math.isfinite(loss)), reports[0][0])
            self._diverged(self._step, loss, list(dict.fromkeys(name for _, names in reports for name in names)))

    @property
    def _is_async(self) -> bool:
        """Whether steps are launched before the GPU has finished the previous one."""
        return self.device.type == "cuda" and self.config.trainer.ahead and distributed.count() == 1

    @cached_property
    def _parameters_by_name(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.network.named_parameters())

    def end_if_diverged(self, wait: bool) -> None:
        """Raise `Diverged` if an update was skipped; without `wait`, only if that is known without synchronising."""
        found = self._detector.found(wait)
        if found is not None:
            self._diverged(found[0], *self._loss_and_layers(found[1]))

    def _loss_and_layers(self, seen: list[float]) -> tuple[float, list[str]]:
        """The loss and the parameters with non-finite gradients, from a step's `sizes`."""
        nonfinite = [name for name, size in zip(self._checked, seen[1:], strict=True) if not math.isfinite(size)]
        return seen[0], nonfinite

    def _diverged(self, step: int, loss: float, layers: list[str]) -> None:
        epoch, step = divmod(step, int(self.trainer.num_training_batches))
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient of {layers[0]} is not finite"
        images = self.trainer.datamodule.batch_images(epoch, step)  # pyright: ignore[reportAttributeAccessIssue]
        details = {"epoch": epoch + 1, "step": step + 1, "loss": str(loss), "layers": layers, "images": images}
        raise Diverged(f"{what} at step {step + 1} of epoch {epoch + 1}, before its update", **details)

    def on_train_epoch_end(self) -> None:
        self.end_if_diverged(wait=True)
        self.log("train_loss", self.train_loss.compute())
        self.log("train_top1_error", 1 - self.train_top1.compute())
        self.log("lr", self.learning_rate_of(self.current_epoch))  # pyright: ignore[reportArgumentType]
        self.train_loss.reset()
        self.train_top1.reset()
        if self.ends_before(self.current_epoch + 1):
            self.trainer.should_stop = True

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluation_step(batch, self.val_loss, self.val_accuracy)

    def on_validation_epoch_end(self) -> None:
        self._log_evaluation("val", self.val_loss, self.val_accuracy)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluation_step(batch, self.test_loss, self.test_accuracy)

    def on_test_epoch_end(self) -> None:
        self._log_evaluation("test", self.test_loss, self.test_accuracy)

    def _evaluation_step(self, batch: tuple[Tensor, Tensor], loss: MeanLoss, accuracy: MetricCollection) -> None:
        inputs, labels = batch
        if len(labels) == 0:  # a small batch may leave a device without images
            return
        logits = self(inputs)
        loss.update(F.cross_entropy(logits, labels), len(labels) / self.config.data.eval_batch_size)
        accuracy.update(logits, labels)

    def _log_evaluation(self, split: str, loss: MeanLoss, accuracy: MetricCollection) -> None:
        errors = {name: 1 - value for name, value in accuracy.compute().items()}
        mean = loss.compute()
        if split == "val" and not torch.isfinite(mean):
            epoch = self.current_epoch + 1
            raise Diverged(f"the validation loss of epoch {epoch} is {mean.item()}", epoch=epoch)
        self.log(f"{split}_loss", mean)
        self.log(f"{split}_top1_error", errors["top1"])
        self.log(f"{split}_top5_error", errors["top5"])
        if split == "val" and not self.trainer.sanity_checking:
            self.val_errors.append(errors["top1"].item())
        loss.reset()
        accuracy.reset()

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The probabilities [B, K] of a batch: inputs [B, 3, H, W], alone or with labels.

        Raises:
            UserError: for uncropped images from our loaders, which only their data module turns into inputs.
        """
        inputs = batch[0] if isinstance(batch, list | tuple) else batch
        if not inputs.is_floating_point():
            raise UserError(
                "trainer.predict: this loader's images are not cropped yet; pass datamodule= instead of it, or use "
                "alexlab.load_run(ID).predict(files)"
            )
        return self(inputs).softmax(1)

    @classmethod
    def load_from_checkpoint(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        *,
        config: Config | None = None,
    ) -> Self:
        """The task with the weights of a record's `checkpoints/last.ckpt` or `best.ckpt`, in evaluation mode.

        Its configuration is `config`, or the record's without its `data.cache`, `data.root` and `data.stage`.

        Raises:
            UserError: if the file is not such a checkpoint, or there is no `config` and none in its record.
        """
        from alexlab.compose import read_config  # here, since training itself needs no Hydra

        path = Path(checkpoint_path)
        try:
            content = torch.load(path, map_location=map_location or "cpu", weights_only=True)
            state, classes = content["state_dict"], content["classes"]
        except (KeyError, TypeError, UnpicklingError, RuntimeError) as error:
            raise UserError(
                f"{path}: is not last.ckpt or best.ckpt of a finished run ({_first_sentence(error)}); "
                "alexlab.load_run(ID) loads a run by its id"
            ) from error
        if config is None:
            recorded = path.resolve().parent.parent / "config.yaml"
            if not recorded.is_file():
                raise UserError(
                    f"{path}: its run's config.yaml is not two folders up; pass config=alexlab.config.load([...])"
                )
            config = read_config(recorded, stored=False)
            for name in ("cache", "root", "stage"):
                setattr(config.data, name, getattr(Config().data, name))
        if config.data.num_classes is None:
            config.data.num_classes = len(classes)
        task = cls(config)
        if config.trainer.precision == "64-true":
            task.double()
        task.network.load_state_dict(state)
        return task.eval()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.end_if_diverged(wait=True)
        checkpoint["val_errors"], checkpoint["train_errors"] = list(self.val_errors), list(self.train_errors)
        checkpoint["sent_per_step"] = self.sent_per_step
        own: dict[str, dict[str, Tensor]] = {}
        for name in _EPOCH_METRICS:  # the sums of the current epoch
            metric = getattr(self, name)
            metric.persistent(True)
            own[name] = {key: value.to("cpu", copy=True) for key, value in metric.state_dict().items()}
            metric.persistent(False)
        # One entry per device that has images of its own: adding them up would change the last bits of later sums.
        checkpoint["train_metrics"] = distributed.gather_objects(own) if self.trainer.world_size > 1 else [own]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.val_errors = list(checkpoint["val_errors"])
        self.train_errors = list(checkpoint.get("train_errors", []))  # missing in states of older versions
        self.sent_per_step = int(checkpoint.get("sent_per_step", 0))  # likewise; no step may follow that counts anew
        saved, share = checkpoint["train_metrics"], (self.trainer.global_rank, self.trainer.world_size)
        for name in _EPOCH_METRICS:
            if name not in saved[0]:
                continue
            sums = [part[name] for part in saved]
            if len(saved) == share[1]:
                state = sums[share[0]]
            else:  # another number of devices: the first one takes over the sums of all
                state = {key: sum(one[key] for one in sums) * (share[0] == 0) for key in sums[0]}
            metric = getattr(self, name)
            metric.persistent(True)
            metric.load_state_dict(state)
            metric.persistent(False)
