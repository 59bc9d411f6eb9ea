"""Networks: AlexNet and the layers of the paper that PyTorch lacks."""

from alexlab.models.alexnet import AlexNet, build_model
from alexlab.models.dropout import Dropout
from alexlab.models.lrn import LocalResponseNorm, SameMapNorm
from alexlab.models.unshared import Unshared2d

__all__ = ["AlexNet", "Dropout", "LocalResponseNorm", "SameMapNorm", "Unshared2d", "build_model"]
