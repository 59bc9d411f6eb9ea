"""Networks: AlexNet and the layers of the paper that PyTorch lacks."""

from alexlab.models.alexnet import AlexNet, build_model
from alexlab.models.dropout import Dropout
from alexlab.models.lrn import LocalResponseNorm

__all__ = ["AlexNet", "Dropout", "LocalResponseNorm", "build_model"]
