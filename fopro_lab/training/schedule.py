"""When a prompt is explored, and how many batches it is put before."""

from fopro_lab.config import TrainConfig

PROMPTING = ("fopro", "random")


def explores(config: TrainConfig, epoch: int) -> bool:
    """Tell whether an exploration stands before an epoch.

    Args:
        config: Of the run.
        epoch: Counted from 0.

    Returns:
        Never for a method without prompt, a prompt from a file, or during the warm-up; then at
        once and every ``explore_every`` epochs, or once if that is 0.

    Example:
        >>> config = TrainConfig(warmup_epochs=1, explore_every=2)
        >>> [explores(config, epoch) for epoch in range(5)]
        [False, True, False, True, False]
    """
    since = epoch - config.warmup_epochs
    if config.method not in PROMPTING or config.prompt_file or since < 0:
        return False
    return since % config.explore_every == 0 if config.explore_every else since == 0


def exploration_place(config: TrainConfig, epoch: int) -> dict[str, int]:
    """Tell which of a run's explorations stands before an epoch, and how long each is.

    Args:
        config: Of the run.
        epoch: Counted from 0; one with an exploration.

    Returns:
        ``number``, from 1; ``explorations``, in all epochs; ``steps``, of one at most.

    Example:
        >>> config = TrainConfig(epochs=5, warmup_epochs=1, explore_every=2, explore_steps=20)
        >>> exploration_place(config, 3)
        {'number': 2, 'explorations': 2, 'steps': 20}
    """
    before, all_of_them = (
        sum(explores(config, each) for each in range(count)) for count in (epoch, config.epochs)
    )
    return {"number": before + 1, "explorations": all_of_them, "steps": config.explore_steps}


def prompted_share(config: TrainConfig, epoch: int) -> float:
    """Tell which share of an epoch's batches is prompted.

    Args:
        config: Of the run.
        epoch: Counted from 0.

    Returns:
        0 during the warm-up, then ``prompted_fraction``, from which a part ``prompted_decay`` is
        lost linearly until the last epoch.

    Example:
        >>> config = TrainConfig(epochs=3, prompted_fraction=0.8, prompted_decay=0.5)
        >>> [round(prompted_share(config, epoch), 2) for epoch in range(3)]
        [0.8, 0.6, 0.4]
    """
    if epoch < config.warmup_epochs:
        return 0.0
    left = max(1, config.epochs - 1 - config.warmup_epochs)
    progress = min(1.0, (epoch - config.warmup_epochs) / left)
    return config.prompted_fraction * (1 - config.prompted_decay * progress)
