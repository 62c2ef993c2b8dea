"""From a plan to stored outcomes: tasks, workers that do them, and who hands them out."""

from bench.scheduler.budget import Budget
from bench.scheduler.listener import Listener, Report
from bench.scheduler.run import Crew, run_plan
from bench.scheduler.work import Measured, Place, measure, network

__all__ = ["Budget", "Crew", "Listener", "Measured", "Place", "Report", "measure", "network", "run_plan"]
