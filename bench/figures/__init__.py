"""The figures of the TGO paper, drawn from stored networks and cells."""
