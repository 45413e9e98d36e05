"""Data sets by name: a definition file in data/, feature files, labels, and the built-in demo set."""

from .dataset import Dataset, Split, load_dataset
from .definition import Definition, list_definitions, load_definition

__all__ = ["Dataset", "Definition", "Split", "list_definitions", "load_dataset", "load_definition"]
