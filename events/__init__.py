"""Recordings of event cameras: what one is, how files hold it, how frames come of it, how a still image becomes one."""

from events.framing import Framing
from events.recording import Recording, Sensor

__all__ = ["Framing", "Recording", "Sensor"]
