"""Checks of the data before any model: are they sound, and what did the pipeline do to them?

Importing this package imports no torch; the pipeline audit does when it is first used.
"""

from typing import Any

from fopro_lab.arguments import check_public, checked
from fopro_lab.checks.report import Finding, Findings, examine, open_for_checks

check_public(__name__)


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used."""
    if name == "audit_pipeline":
        from fopro_lab.checks.pipeline import audit_pipeline

        return checked(audit_pipeline)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
