"""The documentation site's pages that are written by the code itself: every part, every public name, every measurement."""
