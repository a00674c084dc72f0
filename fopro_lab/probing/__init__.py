"""The questions: what a frozen teacher does with each frequency of its input."""

from fopro_lab.probing.card import TeacherCard, teacher_card
from fopro_lab.probing.class_bands import class_band_matrix, fit_probe
from fopro_lab.probing.gains import radial_gain
from fopro_lab.probing.probe import LinearProbe, linear_probe
from fopro_lab.probing.rings import ring_response
from fopro_lab.probing.spectra import mean_spectra

__all__ = [
    "LinearProbe",
    "TeacherCard",
    "class_band_matrix",
    "fit_probe",
    "linear_probe",
    "mean_spectra",
    "radial_gain",
    "ring_response",
    "teacher_card",
]
