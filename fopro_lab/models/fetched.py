"""Published weights that `fopro data fetch` brings, found by the teacher's name."""

from fopro_lab.errors import InputError
from fopro_lab.fetching import fetched_place, find_source

FETCHED = {"moco-v2-resnet50": "moco-v2"}


def fetched_weights(name: str) -> str:
    """Return the file of weights that was fetched for a teacher.

    Args:
        name: As `load_teacher` takes it.

    Returns:
        Its path.

    Raises:
        InputError: If it was not fetched, or is none that can be.

    Example:
        >>> fetched_weights("timm:resnet50")
        Traceback (most recent call last):
        fopro_lab.errors.InputError: weights: expected a file with the weights of timm:resnet50, ...
    """
    asked = FETCHED.get(name)
    place = fetched_place(asked) if asked else None
    if asked and place:
        return str(place / find_source(asked).files[0].name)
    way_out = (
        f"fetch them with `fopro data fetch {asked}`, or give the path"
        if asked
        else "nothing is downloaded, so fetch them from their publisher and give the path"
    )
    raise InputError(f"weights: expected a file with the weights of {name}, got none; {way_out}")
