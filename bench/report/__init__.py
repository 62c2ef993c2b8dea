"""Stored results as text, tables and data."""
