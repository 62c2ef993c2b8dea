"""Pages of results that are written from the outcomes beside them: `python -m bench.pages`."""
