"""`fopro probe`: a teacher's card as a folder of tables and figures, with a page on top."""

from pathlib import Path

from fopro_lab.config import ProbeConfig, TrainConfig
from fopro_lab.data import prepare
from fopro_lab.errors import InputError
from fopro_lab.evaluation import groups_from
from fopro_lab.lab.card_figures import draw_card
from fopro_lab.lab.card_pages import card_page
from fopro_lab.models import load_from
from fopro_lab.probing import Reader, TeacherCard, read_by, teacher_card

PARTS = "heat_map_parts"


def ask_teacher(config: ProbeConfig, *, out: Path | None = None) -> TeacherCard:
    """Open pictures and teacher as a config says, and probe.

    Args:
        config: Pictures, teacher, and how each instrument is set.
        out: Folder in which a heat map keeps what is measured so far; None keeps nothing.

    Returns:
        The card.

    Raises:
        InputError: If pictures, teacher, student or knobs are wrong.
    """
    import torch  # late: the command line waits for it only here

    cuda = torch.cuda.is_available() and config.device != "cpu"
    if config.device == "cuda" and not cuda:
        raise InputError("device: expected a CUDA device, found none; use device=cpu")
    teacher = load_from(config).to("cuda" if cuda else "cpu")
    packed, split = prepare(config)
    student = None
    if config.student_run:
        student = read_student(
            config.student_run,
            split_fingerprint=split.fingerprint,
            image_size=packed.size,
            device="cuda" if cuda else "cpu",
        )
    return teacher_card(
        teacher,
        packed,
        split,
        config,
        groups=groups_from(config, packed.dataset.class_names, split.class_counts(packed.dataset)),
        student=student,
        out=None if out is None else out / PARTS,
    )


def read_student(
    run_dir: Path | str, *, split_fingerprint: str, image_size: int, device: str = "cpu"
) -> Reader:
    """Load the trained student of a run, if it can be asked on these pictures.

    Args:
        run_dir: Its run folder.
        split_fingerprint: Of the split that is probed; another one could put the student's
            training pictures into the test part.
        image_size: Side of the pictures that are probed, pixels.
        device: Where to compute.

    Returns:
        A reader named "student".

    Raises:
        InputError: If there is no finished run, or its split or size is another one.
    """
    from fopro_lab.training.folders import TrainedRun
    from fopro_lab.training.judging import shrink

    run = TrainedRun.read(run_dir)
    if run.state != "done":
        raise InputError(f"student_run: {run_dir}: expected a finished run, got one {run.state}")
    if run.manifest["split_fingerprint"] != split_fingerprint:
        raise InputError(
            f"student_run: {run_dir}: was trained on another split ({run.manifest['protocol']}); "
            "probe with the knobs of data and split that it was trained with"
        )
    trained = TrainConfig.from_mapping(run.config)
    if trained.image_size != image_size:
        raise InputError(
            f"student_run: {run_dir}: reads pictures of {trained.image_size} px, got {image_size}; "
            f"probe with image_size={trained.image_size}"
        )
    student = run.student().to(device)
    return read_by(
        lambda images: student.classify(shrink(images, trained.student_size)),
        name="student",
        device=device,
    )


def write_teacher_card(config: ProbeConfig, *, out: Path) -> Path:
    """Write a teacher's card: ``card.json``, parquet tables, figures and ``index.html``.

    Args:
        config: As in `ask_teacher`.
        out: Folder; a heat map that was interrupted there goes on.

    Returns:
        Path of the page.
    """
    card = ask_teacher(config, out=out)
    card.write(out)
    draw_card(card, out=out)
    return card_page(card, out=out)
