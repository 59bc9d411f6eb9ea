"""Training and evaluation of one network."""

from alexlab.training.task import ClassificationTask

__all__ = ["ClassificationTask"]
