"""What each parameter of a notebook may be: its type, its range, and the words in which another value is refused."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from rscir_lib.runs.paths import encoder_folder, from_root
from rscir_lib.runs.plugins import run_plugins


def _type(kind: Any, expected: str, fits: Callable[[Any], object] = lambda value: True) -> Any:
    """A type whose values fit, and what is expected of them."""

    def check(value: Any) -> Any:
        if not fits(value):
            raise ValueError(expected)
        return value

    return Annotated[kind, Field(description=expected), AfterValidator(check)]


def _choice(*names: str) -> Any:
    return _type(str, f"one of {', '.join(names)}", names.__contains__)


def _whole(low: int, high: int) -> Any:
    return _type(int, f"a whole number from {low} to {high}", lambda value: low <= value <= high)


def _several(one: Any, example: str) -> Any:
    expected = f"a list without repetition, each {one.__metadata__[0].description}, such as {example}"
    return _type(list[one], expected, lambda values: values and len(values) == len(set(map(repr, values))))


def _registered(name: str) -> str:
    from rscir_lib.methods.registry import METHODS

    if name not in METHODS:
        raise ValueError(f"one of {', '.join(METHODS)}")
    return name


def _encoder(name: Any) -> str:
    if name != "demo" and not (isinstance(name, str) and name and from_root(name).is_dir()):
        from rscir_lib.encoders import ENCODERS
        from rscir_lib.encoders.hub import published_as

        if name not in tuple(ENCODERS) and not (isinstance(name, str) and published_as(name)):
            raise ValueError(f"one of {', '.join(ENCODERS)}, or the folder of an encoder")
    return name


def _device(name: str) -> str:
    if name not in ("auto", "cpu"):
        from rscir_lib.storage.device import torch_device

        try:
            torch_device(name)
        except ValueError as error:
            raise ValueError(f"auto, cpu, cuda, cuda:<number> or mps ({error})") from None
    return name


def _template(template: str) -> str:
    if template != "{}":
        from rscir_lib.encoders.prompts import sentences

        sentences(template)
    return template


_Text = _type(str, "a text")
_Words = _type(str, "a text that is not blank", str.strip)
_Truth = _type(bool, "True or False")
_Share = _type(float, "a number from 0 to 1", lambda value: 0 <= value <= 1)
_Lambda = _type(
    float | str, 'a number from 0 to 1, or "auto"', lambda x: x == "auto" if isinstance(x, str) else 0 <= x <= 1
)
_Position = _whole(0, 2**53)  # `Run.check` knows the archive's size; 2**53 is where floats lose whole numbers
_Name = _type(
    str,
    "a name without comma, quote, slash or outer blanks",
    lambda value: re.fullmatch(r"[^\s,/\\\"]([^,/\\\"\n\r]*[^\s,/\\\"])?", value),
)
_Folder = _type(str, 'a folder that is there, or ""', lambda value: not value or from_root(value).is_dir())
_File = _type(str, 'a file that is there, or ""', lambda value: not value or from_root(value).is_file())
_Output = _type(str, 'a folder (made if need be), or ""', lambda value: not (value and from_root(value).is_file()))
_Store = _type(
    str, 'a feature store or a .pkl file that is there, or ""', lambda value: not value or from_root(value).exists()
)
_Choice = _type(str, '"honest", "auto" or a lambda such as "0.5"', re.compile(r"honest|auto|0(\.\d+)?|1").fullmatch)
_Architecture = _type(
    str,
    'the name of an architecture, such as ViT-L-14, or "" for the encoder\'s default',
    lambda value: re.fullmatch(r"([A-Za-z0-9][\w.+-]*)?", value),
)
_Scheduler = _type(
    str,
    'local, the address of a Dask scheduler (tcp://host:8786), or "" for this machine alone',
    lambda value: re.fullmatch(r"(local|(tcp|tls|ucx)://\S+)?", value),
)
_Encoder = Annotated[str, BeforeValidator(_encoder)]
_Device = Annotated[str, Field(description="auto, cpu, cuda, cuda:<number> or mps"), AfterValidator(_device)]
_Method = Annotated[str, Field(description="one of the methods' names"), AfterValidator(_registered)]


class RunConfig(BaseModel):
    """What a run is opened with. Paths may be relative to the project; "" leaves one out."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    DATASET_ROOT: _Folder = ""
    ENCODER: _Encoder = "demo"
    ARCHITECTURE: _Architecture = ""
    LISTING: _File = ""
    PROTOCOL: _choice("released", "first-release") = "released"
    OUTPUT_ROOT: _Output = ""
    MODELS_ROOT: _Folder = ""
    DEVICE: _Device = "auto"
    PRECISION: _choice("float32", "bfloat16", "float16") = "float32"
    TEMPLATE: Annotated[str, Field(description="a text with {} for the words"), AfterValidator(_template)] = "{}"
    FEATURES: _Store = ""
    PLUGINS: _File = ""

    @model_validator(mode="after")
    def _architecture_is_the_encoders(self) -> Self:
        if not self.ARCHITECTURE or encoder_folder(self.ENCODER):
            return self
        if self.ENCODER == "demo":
            expected = '"", as demo comes in one; ENCODER=... names another'
        else:
            from rscir_lib.encoders.hub import PUBLISHED

            known = PUBLISHED.get(self.ENCODER, [self.ARCHITECTURE])  # else its loader knows
            if self.ARCHITECTURE in known:
                return self
            expected = f"one of {', '.join(known)}, which {self.ENCODER} comes in"
        raise ValueError(f"ARCHITECTURE={self.ARCHITECTURE!r}: expected {expected}")


class NotebookConfig(RunConfig):
    """Every parameter that a notebook declares; the defaults that count are the notebooks' own."""

    SCHEDULER: _Scheduler = ""
    BATCH_SIZE: _whole(0, 1_000_000) = 0
    OVERWRITE: _Truth = False
    STRICT: _Truth = False
    LAMBDAS: _several(_Lambda, '[0.3, 0.5] or ["auto"]') = [0.5]
    LAMBDA: _Share = 0.5
    ABLATION: _several(_Method, '["linear", "weicom"]') = ["weicom"]
    METHOD: _Method = "weicom"
    CHOICE: _Choice = "honest"
    METHODS: _several(_Method, '["average", "weicom"]') = ["weicom"]
    LEFT_OUT: _several(_Method, '["sum"]') = ["sum"]
    EXPANDED: _several(_Method, '["linear", "weicom"]') = ["weicom"]
    INVERSION: _Truth = False
    LINCIR: _File = ""
    AGAINST: _Method = "weicom"
    OTHERS: _choice("attribute", "group", "half", "") = ""
    SOLVED: _Share = 0.5
    SYNONYMS: _type(dict[_Words, _Words], 'words and other words for them, such as {"large": "big"}, or {}') = {}
    RUNS_FOLDER: _Folder = ""
    TEXTS: _several(_Words, '["white", "many"]') = ["white"]
    FREE_TEXTS: _several(_Words, '["large", "small"]') = ["large"]
    QUERY_IMAGE: _File = ""
    QUERY_TEXT: _Text = ""
    TOP: _whole(1, 1000) = 8
    DEPTH: _whole(1, 2**53) = 20
    POSITION: _Position = 0
    QUERY: _Position = 0
    SEED: _whole(0, 2**32 - 1) = 0
    ATTRIBUTE: _Name = "ground"
    VALUES: _several(_Name, '["smooth", "rough"]') = ["smooth", "rough"]
    PERSON: _Name = "me"
    MOST: _whole(1, 2**53) = 100
    ORDER: _choice("uncertain", "random") = "uncertain"
    CHECK: _Text = ""
    WRITE_TO_ARCHIVE: _Truth = False


PARAMETERS = NotebookConfig.model_fields  # by name


def checked(model: type[RunConfig], values: dict[str, object]) -> RunConfig:
    """A configuration of checked values, after PLUGINS has run, which may add to them.

    Raises ValueError naming parameter, value and what was expected."""
    if isinstance(plugins := values.get("PLUGINS"), str) and plugins and from_root(plugins).is_file():
        run_plugins(from_root(plugins))
    try:
        return model.model_validate(values)
    except ValidationError as failure:
        error = failure.errors()[0]
    reason = str(error["ctx"]["error"]) if error["type"] == "value_error" else ""
    if not error["loc"]:
        raise ValueError(reason)
    name = error["loc"][0]
    if error["type"] == "extra_forbidden":
        raise ValueError(f"no parameter {name!r} here; there are {', '.join(model.model_fields)}")
    expected = model.model_fields[name].description or ""
    if len(error["loc"]) == 1 and reason:
        expected = reason
    elif reason not in expected:  # of an element
        expected += f" ({reason})"
    raise ValueError(f"{name}={values[name]!r}: expected {expected}")


def check_parameters(**values: object) -> None:
    """Checks parameters by type, range and choice, and an architecture by its encoder (as `checked`)."""
    checked(NotebookConfig, values)
