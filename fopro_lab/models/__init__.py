"""The actors: frozen teachers and trained students."""

from fopro_lab.models.students import Student, StudentOutput, build_student
from fopro_lab.models.teachers import Teacher, load_from, load_teacher, wrap_teacher

__all__ = [
    "Student",
    "StudentOutput",
    "Teacher",
    "build_student",
    "load_from",
    "load_teacher",
    "wrap_teacher",
]
