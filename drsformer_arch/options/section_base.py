"""The base of all sections of an option file: strict reading, and errors in one line that names the option."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from drsformer_arch.options.kinds import SECTION, STRICT, kind_of, reason_of, shown
from drsformer_arch.system.errors import UserError, did_you_mean

# The errors of sections, in the order in which they are told; what else pydantic finds becomes WRONG.
UNKNOWN, WRONG, RULE, MISSING = _TOLD = ("unknown", "wrong", "rule", "missing")
NEEDED = ...  # the default of an option that has none


def option(meaning: str, default: Any = NEEDED, unit: str = "", *, alias: str | None = None, **notes: Any) -> Any:
    """Declare an option.

    Args:
        meaning: what it does, for docs/options.md and for editors.
        default: what holds if the file does not give it; `NEEDED` if it must.
        unit: of its value.
        alias: its name in files, where Python has another use for that.
        notes: what the JSON schema says of it beside its kind; `source` is who defines it, BasicSR or the published
            fork, where not we do.
    """
    notes = {"unit": unit, **notes} if unit else notes
    return Field(default, alias=alias, description=meaning, json_schema_extra=notes)


basicsr = partial(option, source="BasicSR")
fork = partial(option, source="published fork")


def refusal(said: str, key: str = "", *, kind: str = RULE) -> PydanticCustomError:
    """An error for validators to raise: how the line goes on behind the name of the option.

    Args:
        said: such as `: 3 is no multiple of 8`.
        key: of the option, where the validator is of its section.
        kind: of the error.
    """
    return PydanticCustomError(kind, "refused", {"key": key, "said": said})


class Section(BaseModel):
    """A section of an option file; keys that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True, **STRICT)

    @staticmethod
    def is_of_others(_key: str) -> bool:
        """Tell whether a key that the section does not know is left alone nevertheless."""
        return False

    @classmethod
    def options(cls) -> dict[str, Any]:
        """The options by the names that stand in files."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}

    @classmethod
    def read(cls, values: Any, where: str = "", *, further_keys: bool = False) -> Self:
        """Read a section.

        Args:
            values: as they stand in a file.
            where: its name in messages; empty for the whole file.
            further_keys: ignore what it does not know: the section is of a class that somebody derived from ours.

        Raises:
            UserError: one line that names the option: an unknown key (with the nearest known one), a value of the
                wrong kind, a missing key, values that do not go together.
        """
        if not isinstance(values, dict):
            raise UserError(f"option {where} must be {SECTION}, not {shown(values)}")
        try:
            known = cls.options()
            return cls.model_validate({k: v for k, v in values.items() if k in known} if further_keys else values)
        except ValidationError as error:
            raise UserError(_line_of(error, values, where)) from None

    def as_dict(self) -> dict[str, Any]:
        """The options that were given, as BasicSR takes them."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if not isinstance(values, dict) or cls.model_config["extra"] != "forbid":
            return values
        known = cls.options()
        values = {key: value for key, value in values.items() if not cls.is_of_others(key)}
        unknown = next((key for key in values if key not in known), None)
        if unknown is not None:
            raise refusal(did_you_mean(unknown, known), str(unknown), kind=UNKNOWN)
        return values

    @field_validator("*", mode="wrap")
    @classmethod
    def _say_what_it_must_be(cls, value: Any, check: Callable[[Any], Any], info: Any) -> Any:
        try:
            return check(value)
        except ValidationError as error:
            problems = error.errors(include_input=False, include_url=False)
            if any(problem["type"] in _TOLD for problem in problems):
                raise  # of a section inside this one, or of a rule for this value
            if isinstance(value, dict) and problems[0]["type"] == "model_type":  # an entry of sections by free names
                name = problems[0]["loc"][0]
                raise refusal(f" must be {SECTION}, not {shown(value[name])}", str(name), kind=WRONG) from None
            annotation = cls.model_fields[info.field_name].rebuild_annotation()
            said = f" must be {kind_of(annotation)}, not {shown(value)}{reason_of(annotation)}"
            raise refusal(said, kind=WRONG) from None


def _line_of(error: ValidationError, values: Mapping[str, Any], where: str) -> str:
    """Say the first of pydantic's errors in our words."""
    told = [one for one in error.errors(include_input=False, include_url=False) if one["type"] in _TOLD]
    first = min(told, key=lambda one: _TOLD.index(one["type"]))
    place, value = where, values
    said = {"key": str(first["loc"][-1]), "said": " is missing"} if first["type"] == MISSING else first["ctx"]
    for part in first["loc"]:
        if isinstance(value, dict) and part in value:  # pydantic also names the alternatives that it tried
            place, value = f"{place}.{part}" if place else str(part), value[part]
        elif isinstance(value, list) and isinstance(part, int):
            place, value = f"{place}[{part}]", value[part]
    name = ".".join(part for part in (place, said["key"]) if part)
    return f"{'unknown option' if first['type'] == UNKNOWN else 'option'} {name}{said['said']}"
