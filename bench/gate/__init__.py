"""Did robustness fall? What was measured now against a stored baseline, image by image."""
