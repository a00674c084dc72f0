"""Plans of notebooks, executed by papermill, and the pages they make."""

from fopro_lab.reports.run import run_plan

__all__ = ["run_plan"]
