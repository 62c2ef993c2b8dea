"""Attacks on recordings of event cameras: they edit lists of events, and a network sees frames of what is left."""
