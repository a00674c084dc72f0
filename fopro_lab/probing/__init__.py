"""Probing: what a frozen teacher does with each frequency of its input."""

from fopro_lab.arguments import check_public
from fopro_lab.probing.class_bands import class_band_matrix
from fopro_lab.probing.features import Classifier, LinearProbe, fit_classifier, wrap_classifier
from fopro_lab.probing.heat_map import basis_heat_map, heat_plane
from fopro_lab.probing.preferences import (
    Comparison,
    ask_teachers,
    compare_cards,
    preference_distances,
    read_cards,
    relative_responses,
)
from fopro_lab.probing.ring_response import (
    RingDrifts,
    mean_spectra,
    radial_gain,
    ring_drifts,
    ring_response,
)
from fopro_lab.probing.teacher_card import TeacherCard, teacher_card

check_public(__name__)
