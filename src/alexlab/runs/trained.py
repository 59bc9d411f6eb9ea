"""A finished run for use: its network, its classes, its preprocessing of images, and its curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from alexlab.config import Accelerator, Config
from alexlab.data.decode import Unreadable, read_square, square
from alexlab.errors import UserError
from alexlab.runs.ensemble import check_files, load_network, read_done
from alexlab.runs.record import Record, find_record
from alexlab.training.evaluate import EnsembleMember, probabilities

if TYPE_CHECKING:
    import pandas as pd

BATCH = 64  # images in memory at a time


class _FromPixels(nn.Module):
    """A network that includes its normalisation: from pixels in 0-255 to probabilities."""

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, mean: Tensor, scale: float | Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", mean)
        # One number, or one for each colour.
        self.register_buffer("scale", torch.as_tensor(scale, dtype=mean.dtype).reshape(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) * self.scale).softmax(1)


@dataclass(frozen=True)
class TrainedRun:
    """A finished run's network in evaluation mode, with its final weights (`evaluate.checkpoint`)."""

    record: Record
    config: Config
    member: EnsembleMember
    device: torch.device

    @property
    def network(self) -> nn.Module:
        """From float32 [B, 3, H, W], as `preprocessed` makes it, to logits [B, K]."""
        return self.member.network

    @property
    def classes(self) -> list[str]:
        """The K classes in the order of the logits, as named in the data: folder names, WordNet ids."""
        return self.member.data.store.classes

    @property
    def class_names(self) -> list[str]:
        """Readable names of the K classes, in the order of the logits: "tench" for n01440764."""
        return self.member.data.store.class_names

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch, as in metrics.csv."""
        import pandas as pd

        return pd.read_csv(self.record.file("metrics.csv"))

    def stored(self, image: str | Path | bytes | Image.Image | np.ndarray) -> np.ndarray:
        """An image as stored, uint8 [S, S, 3]: upright, RGB, resized and cropped according to `data.resize`.

        Raises:
            UserError: for a file that is not a complete image.
            OSError: for a file that cannot be read.
        """
        data = self.config.data
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        if isinstance(image, Image.Image):
            return square(image.convert("RGB"), data.size, data.resize)
        name, content = ("the image", image) if isinstance(image, bytes) else (str(image), Path(image).read_bytes())
        try:
            return read_square(content, name, data.size, data.resize)[0]
        except Unreadable as error:
            raise UserError(f"{name}: {error}") from error

    def preprocessed(self, images: np.ndarray, view: str = "center") -> list[torch.Tensor]:
        """The network's inputs for stored images, uint8 [N, S, S, 3]: float32 [N, 3, H, W] for each crop of the view.

        The crop minus the mean image (`data.mean`), times `data.pixel_scale`; `view` is `center` or `ten` (4.1).
        """
        data = self.member.data
        return list(data.views(torch.from_numpy(images).to(self.device), data.windows(view)))

    def probabilities(self, images: np.ndarray, view: str = "ten") -> np.ndarray:
        """Class probabilities, float64 [N, K], of stored images, uint8 [N, S, S, 3]: the mean over crops."""
        with torch.inference_mode():
            batches = [torch.from_numpy(images[first : first + BATCH]) for first in range(0, len(images), BATCH)]
            found = [probabilities(self.member, batch.to(self.device), (view,))[view] for batch in batches]
            return torch.cat(found).double().cpu().numpy()

    def predict(
        self, images: Sequence[str | Path | bytes | Image.Image | np.ndarray], top: int = 5, view: str = "ten"
    ) -> list[list[tuple[str, float]]]:
        """For each image, the names of its likeliest classes with their probabilities, likeliest first.

        Raises:
            UserError, OSError: as in `stored`.
        """
        if not images:
            return []
        found = self.probabilities(np.stack([self.stored(image) for image in images]), view)
        return self.likeliest(found, top)

    def likeliest(self, probabilities: np.ndarray, top: int = 5) -> list[list[tuple[str, float]]]:
        """The names of the `top` classes of each row, [N, K], with their probabilities, likeliest first."""
        names = self.class_names
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        return [
            [(names[label], float(chances[label])) for label in row]
            for row, chances in zip(order, probabilities, strict=True)
        ]

    def export_onnx(self, path: str | Path) -> None:
        """Write the network as an ONNX file, with the mean image, the scale and the softmax inside.

        Its input `images` is float32 [N, 3, H, W], RGB in 0-255, cropped by `data.resize` and the centre view;
        its output `probabilities` is float32 [N, K]. The file's metadata contain the run id, the classes, their names
        and this preprocessing. Outputs differ from the network's by less than 1e-4 (onnxruntime).

        Raises:
            UserError: if the packages `onnx` and `onnxscript` are not installed.
        """
        if find_spec("onnxscript") is None:
            raise UserError("--onnx: needs the packages onnx and onnxscript; pip install onnx onnxscript")
        data, config = self.member.data, self.config.data
        assert config.crop_size is not None
        [window] = data.windows("center")
        mean = data.normalisation.mean_crop(window, config.crop_size).unflatten(1, (-1, 3)).permute(2, 0, 1)
        network = _FromPixels(self.network, mean.contiguous(), data.normalisation.scale).eval().cpu()
        images = torch.zeros(2, 3, config.crop_size, config.crop_size)
        batch = torch.export.Dim("batch")
        found = torch.onnx.export(
            network,
            (images,),
            input_names=["images"],
            output_names=["probabilities"],
            dynamo=True,
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
        assert found is not None
        found.model.metadata_props.update(
            run_id=self.record.run_id,
            classes=json.dumps(self.classes),
            class_names=json.dumps(self.class_names),
            preprocessing=f"RGB, 0-255; data.resize={config.resize.name} to {config.size} pixels, then the centre "
            f"{config.crop_size} x {config.crop_size}; the mean and the scale are in the network",
        )
        found.save(str(path))
        self.network.to(self.device)


def load_run(
    run_id: str, runs: str | Path = "runs", cache: str | Path | None = None, code: str | Path | None = None
) -> TrainedRun:
    """Load a finished run by its id, which may be abbreviated.

    `runs`: the folder of the records. `cache`: the folder of the prepared images, with the mean image and the class
    names, if it is not the default one (`data.cache`, ALEXLAB_CACHE). `code`: for a net of your own (`model.build`),
    the folder with its Python file, which is run.

    Raises:
        UserError: if the run does not exist or is not done, or its weights or its store are missing.
    """
    settings = Config()
    settings.paths.runs = str(runs)
    if cache is not None:
        settings.data.cache = str(cache)
    if code is not None:
        settings.paths.code = str(code)
    run = read_done(find_record(Path(runs), run_id).run_id, settings, [])
    check_files(run)
    config = run.config
    network, data = load_network(config, run.checkpoint)
    torch.backends.cudnn.allow_tf32 = False  # as in an evaluation
    use_gpu = torch.cuda.is_available() and config.trainer.accelerator is not Accelerator.cpu
    device = torch.device("cuda" if use_gpu else "cpu")
    member = EnsembleMember(network.eval().to(device), (), data, config.evaluate.average)
    return TrainedRun(run.record, config, member, device)
