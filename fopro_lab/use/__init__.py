"""A trained student at work: predictions of new images, exported files, runs for trackers."""

from fopro_lab.arguments import check_public
from fopro_lab.use.export import export_student
from fopro_lab.use.predict import predict
from fopro_lab.use.track import track

check_public(__name__)
