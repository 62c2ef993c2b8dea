"""The encodings: what is shown of an image at each time step."""
