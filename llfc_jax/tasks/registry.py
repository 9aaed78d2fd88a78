"""Tasks by name: the one place where they are listed and built."""

import inspect
from collections.abc import Callable, Mapping
from typing import TypeAlias

from llfc_jax.errors import ConfigError, unknown
from llfc_jax.tasks.task import Task

TaskFn: TypeAlias = Callable[..., Task]
TASKS: dict[str, TaskFn] = {}


def task(name: str) -> Callable[[TaskFn], TaskFn]:
    """Registers a function that returns a task under a name."""

    def register(make: TaskFn) -> TaskFn:
        TASKS[name] = make
        return make

    return register


def build(given: "str | Mapping[str, object] | Task") -> Task:
    """Returns a task.

    Args:
        given: a `Task`, a name of `TASKS`, or a mapping of the name and the task's options, as in
            `{"name": "regression", "loss": "absolute"}`.

    Raises:
        ConfigError: a name or an option that there is not.

    Examples:
        >>> build("tokens").main
        'loss'
    """
    if isinstance(given, Task):
        return given
    options = dict(given) if isinstance(given, Mapping) else {"name": given}
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in TASKS:
        raise ConfigError(unknown("task", name, TASKS))
    known = inspect.signature(TASKS[name]).parameters
    for option in options:
        if option not in known:
            raise ConfigError(unknown(f"option of task {name!r}", option, known))
    return TASKS[name](**options)
