"""Defenses: values that say how a network is trained, and that add up."""

from defenses.base import ConflictError, Defense, Part, Setting, Step

__all__ = ["ConflictError", "Defense", "Part", "Setting", "Step"]
