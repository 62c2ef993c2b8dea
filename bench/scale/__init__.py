"""How plans and stores grow: a synthetic store of any size, and what every command costs in it."""
