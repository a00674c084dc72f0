"""Data and weights from their publishers: once, checked, and resumable. Imports no torch."""

from fopro_lab.fetching.fetch import data_folder, fetch, fetched_place
from fopro_lab.fetching.publishers import find_source, source_names

__all__ = ["data_folder", "fetch", "fetched_place", "find_source", "source_names"]
