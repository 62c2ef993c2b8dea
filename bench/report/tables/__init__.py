"""The tables of the TGO paper from stored runs."""
