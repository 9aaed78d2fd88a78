"""Tasks: how a network's outputs are judged, whatever they are.

`classification`, `tokens`, `dense`, `multilabel`, `regression`, `contrastive`, and one's own:
`Task(loss=f, metrics={...})`. `TASKS` lists them by name.
"""

from llfc_jax.tasks.batch import Batch, count_batches, read_batch
from llfc_jax.tasks.registry import TASKS, build, task
from llfc_jax.tasks.task import Derived, Pooled, Task

# isort: off
from llfc_jax.tasks.labels import classification, dense, multilabel, tokens
from llfc_jax.tasks.regression import regression
from llfc_jax.tasks.contrastive import contrastive
# isort: on

__all__ = [
    "TASKS",
    "Batch",
    "Derived",
    "Pooled",
    "Task",
    "build",
    "classification",
    "contrastive",
    "count_batches",
    "dense",
    "multilabel",
    "read_batch",
    "regression",
    "task",
    "tokens",
]
