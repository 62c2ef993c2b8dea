"""Self-tests on the user's own machine: attacks, gradients, networks, arithmetic, storage."""
