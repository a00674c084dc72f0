"""What all configs share: frozen, validated, and a clear line for the first problem."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from fopro_lab.errors import InputError

ConfigType = TypeVar("ConfigType", bound="Config")


class Config(BaseModel):
    """Base of all configs: immutable, no unknown names, nothing infinite or undefined."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_mapping(cls: type[ConfigType], values: Mapping[str, Any]) -> ConfigType:
        """Build the config and turn the first problem into one clear line.

        Args:
            values: Field names and values.

        Returns:
            The validated config.

        Raises:
            InputError: For an unknown name (with the nearest known one) or a value out of range.

        Example:
            >>> from fopro_lab.config import TrainConfig
            >>> TrainConfig.from_mapping({"epoch": 3})
            Traceback (most recent call last):
            fopro_lab.errors.InputError: epoch: not a name of TrainConfig; did you mean 'epochs'?
        """
        for name in values:
            if name not in cls.model_fields:
                near = get_close_matches(str(name), cls.model_fields, n=1)
                hint = f"did you mean '{near[0]}'?" if near else "see `fopro train --print-config`"
                raise InputError(f"{name}: not a name of {cls.__name__}; {hint}")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            parts = [str(part) for part in first["loc"] if part != "[key]"]
            name = ".".join(parts) or cls.__name__
            message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
            raise InputError(f"{name}: expected {message}{got}") from None

    @classmethod
    def from_parameters(cls: type[ConfigType], namespace: Mapping[str, Any]) -> ConfigType:
        """Pick this config's fields out of a notebook's namespace.

        Args:
            namespace: Typically ``globals()`` after the parameters cell.

        Returns:
            The validated config; fields that the notebook does not declare keep their default. A
            parameter that is left at its default counts as not given, so that a recipe fills it.

        Example:
            >>> from fopro_lab.config import TrainConfig
            >>> epochs, unrelated = 3, "x"
            >>> TrainConfig.from_parameters({"epochs": epochs, "unrelated": unrelated}).epochs
            3
        """
        fields = cls.model_fields
        return cls.from_mapping(
            {k: v for k, v in namespace.items() if k in fields and v != fields[k].default}
        )
