"""Data sets, splits, packs and batches. Importing this package does not import torch."""

from fopro_lab.arguments import check_public, late
from fopro_lab.data.batches import batches, cycle, effective_counts, paired_batches
from fopro_lab.data.dataset import Dataset, from_torch, open_dataset, open_from
from fopro_lab.data.pack import Pack, Prepared, pack, prepare, split_from
from fopro_lab.data.published_splits import make_hyperkvasir, make_isic2019_lt, make_monica
from fopro_lab.data.split_rules import Split, make_folds, make_long_tail, make_split

_WITH_TORCH = ("apply_augmentations", "float_images", "mix", "read_pixels", "sample_augmentations")
check_public(__name__)
__getattr__ = late(__name__, dict.fromkeys(_WITH_TORCH, "augment"))
