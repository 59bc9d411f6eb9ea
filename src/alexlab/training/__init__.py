"""Train and evaluate one network."""

from alexlab.training.module import ClassificationTask

__all__ = ["ClassificationTask"]
