"""The spiking layer's hot loops for one kind of machine each; `models.lif` is what they must equal."""
