"""Checks of the data before any model: are they sound, and what did the pipeline do to them?

Importing this package imports no torch; the pipeline audit does when it is first used.
"""

from fopro_lab.arguments import check_public, late
from fopro_lab.checks.report import Finding, Findings, examine, open_for_checks

check_public(__name__)
__getattr__ = late(__name__, {"audit_pipeline": "pipeline"})
