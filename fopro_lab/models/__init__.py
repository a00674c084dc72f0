"""Frozen teachers and trained students."""

from fopro_lab.arguments import check_public
from fopro_lab.models.student import Student, StudentOutput, build_student
from fopro_lab.models.teacher import Teacher, choose_device, load_from, load_teacher, wrap_teacher

check_public(__name__)
