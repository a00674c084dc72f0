"""Trained students at work: predictions, what changed between two, exported files, trackers."""

from fopro_lab.arguments import check_public
from fopro_lab.use.changes import explain_changes
from fopro_lab.use.export import export_student
from fopro_lab.use.predict import predict
from fopro_lab.use.track import track

check_public(__name__)
