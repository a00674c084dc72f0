"""How notebooks ended, and the report in words; no table and no figure is needed for that."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fopro_lab.progress import in_bytes


@dataclass(frozen=True)
class NodeReport:
    """How one node ended: done, kept, failed, skipped, stopped or left out.

    ``folder`` is its ``out_dir`` and ``page`` its HTML page, both seen from the index; ``page`` is
    empty when there is none. ``reason`` says in one line what went wrong. ``memory`` is the peak of
    its processes in bytes, 0 where it is not known; ``attempts`` how often its kernel was started.
    """

    name: str
    entry: str
    state: str
    seconds: float = 0.0
    folder: str = ""
    page: str = ""
    reason: str = ""
    parameters: str = ""
    memory: int = 0
    attempts: int = 1

    @property
    def peak(self) -> str:
        """The peak of memory as a person says it; empty where it is not known."""
        return in_bytes(self.memory) if self.memory else ""

    @property
    def time(self) -> str:
        """The duration as a person says it; empty if the node never ran."""
        return duration(self.seconds) if self.seconds else ""


@dataclass(frozen=True)
class Report:
    """All that the index says in words."""

    title: str
    about: str
    nodes: Sequence[NodeReport]
    facts: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return asdict(self)


def duration(seconds: float) -> str:
    """Say a duration.

    Args:
        seconds: At least 0.

    Example:
        >>> duration(3.24), duration(75), duration(3720)
        ('3.2 s', '1 min 15 s', '1 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
