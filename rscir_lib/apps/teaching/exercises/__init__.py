"""What is right, exercise by exercise: worked out by the library from the run at hand, never stored.

`exercise_03_1(c)` gives the truth of exercise 03.1 from the context `c`; where it can, it takes another way than the
solution in the notebook.
"""

from collections.abc import Callable

from rscir_lib.apps.teaching.context import ExerciseContext, Truth
from rscir_lib.apps.teaching.exercises import hands_on, research, walk

EXERCISES: dict[str, Callable[[ExerciseContext], Truth]] = {
    name.removeprefix("exercise_").replace("_", "."): exercise
    for module in (walk, hands_on, research)
    for name, exercise in vars(module).items()
    if name.startswith("exercise_")
}
