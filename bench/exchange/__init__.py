"""Results as files: what a store holds, to be merged into another, kept as a baseline, or submitted."""
