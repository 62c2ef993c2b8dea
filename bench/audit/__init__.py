"""When is a robustness number believable? Checks on every cell, and on a network as a whole."""
