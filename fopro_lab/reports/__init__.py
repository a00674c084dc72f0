"""Plans of notebooks, executed by papermill, and the pages they make."""

from fopro_lab.reports.run import execute_notebook, run_plan

__all__ = ["execute_notebook", "run_plan"]
