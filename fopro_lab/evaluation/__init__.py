"""From predictions to scores with intervals, paired comparisons and tables. No torch."""

from fopro_lab.arguments import check_public
from fopro_lab.evaluation.calibration import Calibration, calibrate
from fopro_lab.evaluation.compare import (
    compare,
    compare_all,
    compare_teachers,
    dropped_lines,
    histories,
    is_clear,
    score_runs,
    summarise,
    summarise_teachers,
    teacher_of,
    undertrained,
)
from fopro_lab.evaluation.metrics import balanced_accuracy
from fopro_lab.evaluation.paper_tables import (
    METHOD_LABELS,
    difference_table,
    differing_pairs,
    findings,
    latex_tables,
    leaders,
    level_table,
    markdown_tables,
    method_label,
    with_interval,
)
from fopro_lab.evaluation.runs import Run, load_runs
from fopro_lab.evaluation.scores import (
    check_predictions,
    class_groups,
    class_names,
    groups_from,
    read_predictions,
    score,
    write_predictions,
)

check_public(__name__)
