"""Gradients, potentials and the loss around images of a trained network, as numbers.

What the numbers are for: a high robust accuracy may mean that an attack found nothing to
follow (gradients that are exactly zero) instead of that there is nothing to find.
"""
