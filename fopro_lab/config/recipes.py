"""Named recipes: values for several knobs at once; a knob that is given wins over them."""

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
    # The release's own commands. They train 100 epochs or 500, by data set, so
    # the number of epochs stays a choice; its student may start from ImageNet's weights.
    "published": {
        "student": "resnet18",
        "image_size": 224,
        "student_size": 0,
        "batch_size": 32,
        "accumulate": 1,
        "optimiser": "adam",
        "learning_rate": 3e-4,
        "weight_decay": 0.0,
        "schedule": "constant",
        "rate_warmup": 0.0,
        "clip_norm": 5.0,
        "label_smoothing": 0.0,
        "ema_decay": 0.0,
        "distill_weight": 3.0,
        "augment": "published",
        "augment_mode": "exact",
        "sampler": "instance",
        "mixup_alpha": 0.0,
    },
}
