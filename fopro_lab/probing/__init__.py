"""The questions: what a frozen teacher does with each frequency of its input."""

from fopro_lab.probing.class_bands import class_band_matrix, pass_ladder, phase_and_amplitude
from fopro_lab.probing.features import LinearProbe, Reader, fit_probe, linear_probe, read_by
from fopro_lab.probing.heat_map import basis_heat_map, heat_plane
from fopro_lab.probing.preferences import (
    Comparison,
    ask_teachers,
    compare_cards,
    preference_distances,
    relative_responses,
)
from fopro_lab.probing.ring_response import RingDrifts, radial_gain, ring_drifts, ring_response
from fopro_lab.probing.spectra import mean_spectra, source_fingerprint
from fopro_lab.probing.teacher_card import TeacherCard, teacher_card

__all__ = [
    "Comparison",
    "LinearProbe",
    "Reader",
    "RingDrifts",
    "TeacherCard",
    "ask_teachers",
    "basis_heat_map",
    "class_band_matrix",
    "compare_cards",
    "fit_probe",
    "heat_plane",
    "linear_probe",
    "mean_spectra",
    "pass_ladder",
    "phase_and_amplitude",
    "preference_distances",
    "radial_gain",
    "read_by",
    "relative_responses",
    "ring_drifts",
    "ring_response",
    "source_fingerprint",
    "teacher_card",
]
