"""Classifiers for guidance: their gradient becomes a member of a plan."""

from pysdk.export.classifier.adding import add_classifier

__all__ = ["add_classifier"]
