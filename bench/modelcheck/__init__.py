"""Whether a network can be measured at all: what `bench check-model` says."""
