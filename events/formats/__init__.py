"""Files that hold recordings, one format a module."""
