"""Networks: AlexNet and the layers of the paper that PyTorch lacks."""

from alexlab.models.alexnet import AlexNet, build_model, compiled
from alexlab.models.batch_norm import BatchNorm
from alexlab.models.dropout import Dropout
from alexlab.models.locally_connected import LocallyConnected2d
from alexlab.models.lrn import LocalResponseNorm, SameMapNorm
from alexlab.models.towers import Tower

__all__ = [
    "AlexNet",
    "BatchNorm",
    "Dropout",
    "LocalResponseNorm",
    "LocallyConnected2d",
    "SameMapNorm",
    "Tower",
    "build_model",
    "compiled",
]
