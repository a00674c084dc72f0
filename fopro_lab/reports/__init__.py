"""Plans of notebooks, executed by papermill, and the pages they make."""

from fopro_lab.arguments import check_public
from fopro_lab.reports.execute import execute_notebook
from fopro_lab.reports.run import run_plan

check_public(__name__)
