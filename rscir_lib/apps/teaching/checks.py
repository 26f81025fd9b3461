"""Checks that answer: `check = Checks(run, QUERY=QUERY)`, then `check("03.1", answer)`."""

from functools import cache
from numbers import Real

import numpy as np
import pandas as pd
from IPython.display import display

from rscir_lib.apps.teaching.context import ExerciseContext, Truth
from rscir_lib.apps.teaching.exercises import EXERCISES
from rscir_lib.runs import Run

# how far from the truth an answer may be, by unit: half of the last digit that tables show; of "number" a hundredth
TOLERANCES = {"%": 0.051, "points": 0.051, "share": 6e-4, "cosine": 1e-3, "number": 0.01, "lambda": 1e-9}
TOLERANCES |= {"rank": 0, "count": 0, "name": 0}
# slips that are typical of units, what is said about each, and how it makes a wrong answer of the right one
SLIPS = (
    ("% points", "this looks like a fraction; per cent or points are asked", lambda right: right / 100),
    ("% points", "rounded too far; one decimal is asked", np.round),
    ("points", "the right size, but the wrong sign", np.negative),
    ("share", "this looks like per cent; a number from 0 to 1 is asked", lambda right: 100 * right),
    ("rank", "off by one: the first rank is 1, while Python counts from 0", lambda right: right - 1),
    ("count", "off by one", lambda right: right + 1),
)
# of an output that says whether a solution is right, and how many wrong answers its check refused
PROOF = "application/vnd.rscir.proof+json"


class Checks:
    """Says whether answers to exercises are right, or what is wrong with them, without giving the right ones away.

    The arguments are those of an `ExerciseContext`, from which `exercises` computes what is right when it is needed.
    """

    def __init__(self, run: Run, **parameters: object) -> None:
        self.context = ExerciseContext(run, **parameters)

    def __call__(self, number: str, answer: object) -> None:
        """Prints whether `answer` is right. Raises ValueError for a number that no exercise has."""
        try:
            message = compare(answer, self.truth(number))
        except OSError as error:
            message = f"it can't be checked yet: {error}"
        print(f"{number}: {message or 'right'}.")

    def prove(self, number: str, answer: object) -> None:
        """Checks `answer` and then typical wrong ones, for teachers; shows the result, and records it as `PROOF`."""
        truth = self.truth(number)
        message = compare(answer, truth)
        refusals = [refusal for wrong in mistakes(truth).values() if (refusal := compare(wrong, truth))]
        lines = [f"{number}: {message or 'right'}; {len(refusals)} wrong answers refused:"]
        text = "\n  ".join(lines + refusals)
        proof = {"exercise": number, "right": not message, "refused": len(refusals)}
        display({"text/plain": text, PROOF: proof}, raw=True)

    @cache  # noqa: B019 (as long as its notebook)
    def truth(self, number: str) -> Truth:
        """What is right. Raises ValueError for a number that no exercise has."""
        if number not in EXERCISES:
            raise ValueError(f"no exercise {number!r}; there are {', '.join(EXERCISES)}")
        return EXERCISES[number](self.context)


def compare(answer: object, truth: Truth) -> str:
    """What is wrong with an answer, without giving the right one away; "" where it is right."""
    if answer is ...:
        return "no answer yet: put yours into `answer`"
    try:
        given = _plain(answer, truth.value)
    except (TypeError, ValueError) as error:
        return str(error)
    right = _plain(truth.value, truth.value)
    if _near(given, right, truth.unit):
        return ""
    for message, wrong in mistakes(truth).items():
        if _near(given, _plain(wrong, truth.value), truth.unit):
            return message
    if np.ndim(right):
        if _near(np.sort(given), np.sort(right), truth.unit):
            return "the right numbers in another order"
        good = sum(_near(one, other, truth.unit) for one, other in zip(given, right, strict=True))
        return f"{good} of {len(right)} numbers are right"
    return "this is not the right answer; read again what the exercise asks for"


def mistakes(truth: Truth) -> dict[str, object]:
    """Typical wrong answers, by what is said about them: the exercise's own, and those of its unit and shape."""
    wrong = dict(truth.mistakes)
    if not isinstance(truth.value, str):
        value = truth.value if isinstance(truth.value, pd.Series) else np.asarray(truth.value, float)
        wrong |= {message: slip(value) for units, message, slip in SLIPS if truth.unit in units.split()}
        if np.ndim(value) and len(value) > 1:
            wrong["the right numbers in another order"] = np.roll(value, 1)
    right = _plain(truth.value, truth.value)
    near = {message: _near(_plain(answer, truth.value), right, truth.unit) for message, answer in wrong.items()}
    return {message: answer for message, answer in wrong.items() if not near[message]}


def _near(given: str | np.ndarray, right: str | np.ndarray, unit: str) -> bool:
    if isinstance(right, str):
        return given == right
    tolerance = TOLERANCES[unit] * (np.abs(right) if unit == "number" else 1)
    return bool((np.abs(given - right) <= tolerance).all())


def _plain(value: object, like: object) -> str | np.ndarray:
    """A value as text or numbers, in the order of `like`. Raises TypeError or ValueError saying why it can't be one."""
    if isinstance(like, str):
        if not isinstance(value, str):
            raise TypeError(f"{_asked(like)}, not {_kind(value)}")
        return value.strip().casefold()
    if isinstance(like, pd.Series) and isinstance(value, dict | pd.Series):
        value = pd.Series(value)
        if missing := [str(name) for name in like.index if name not in value.index]:
            raise ValueError(f"a number is missing for {', '.join(missing[:3])}")
        value = value[like.index]
    try:
        given = np.asarray(value)
    except (ValueError, RuntimeError):  # lists that differ in length; a tensor with gradients
        given = np.array(None)
    flat = given.ravel().tolist()
    if given.shape != np.shape(like) or not all(map(_is_number, flat)):
        raise TypeError(f"{_asked(like)}, not {_kind(value)}")
    numbers = np.array([one if abs(one) < 1e300 else np.nan for one in flat], float).reshape(given.shape)
    if not np.isfinite(numbers).all():
        raise ValueError("not every value is a finite number: was something divided by zero, or averaged over nothing?")
    return numbers


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _kind(value: object) -> str:
    """What a value is, in words."""
    if value is None or isinstance(value, str) or _is_number(value):
        return "None" if value is None else "a text" if isinstance(value, str) else "one number"
    kind = f"a {type(value).__name__}".replace("a ndarray", "an array")
    try:
        shape, flat = np.shape(value), np.asarray(value).ravel().tolist()
    except (ValueError, RuntimeError):
        return f"{kind} whose parts differ in length, or that NumPy can't read"
    texts = "texts" if flat and all(isinstance(one, str) for one in flat) else "values that are no numbers"
    parts = f" of {' x '.join(map(str, shape))} {'numbers' if all(map(_is_number, flat)) else texts}"
    return kind + parts * bool(shape)


def _asked(like: object) -> str:
    if np.ndim(like) == 0:
        return f"{_kind(like)} is asked"
    names = f" ({', '.join(map(str, like.index))})" if isinstance(like, pd.Series) else ""
    return f"{' x '.join(map(str, np.shape(like)))} numbers{names} are asked"
