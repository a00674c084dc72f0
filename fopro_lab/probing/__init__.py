"""The questions: what a frozen teacher does with each frequency of its input."""

from fopro_lab.probing.card import teacher_card
from fopro_lab.probing.card_files import TeacherCard
from fopro_lab.probing.class_bands import class_band_matrix
from fopro_lab.probing.comparison import Comparison, compare_cards
from fopro_lab.probing.gains import radial_gain
from fopro_lab.probing.heatmaps import basis_heat_map, heat_plane
from fopro_lab.probing.ladders import pass_ladder
from fopro_lab.probing.phases import phase_and_amplitude
from fopro_lab.probing.preferences import preference_distances, relative_responses
from fopro_lab.probing.probe import LinearProbe, linear_probe
from fopro_lab.probing.readers import Reader, fit_probe, read_by
from fopro_lab.probing.rings import RingDrifts, ring_drifts, ring_response
from fopro_lab.probing.several import ask_teachers
from fopro_lab.probing.sources import source_fingerprint
from fopro_lab.probing.spectra import mean_spectra

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
