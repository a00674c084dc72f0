"""Widgets: what a person moves by hand in a notebook or on the explorer's page."""
