"""One model made of several, in one call."""

from collections.abc import Sequence
from typing import Any

from llfc_jax.frameworks import Network
from llfc_jax.merging.options import MergeOptions
from llfc_jax.merging.prepare import prepare_inputs
from llfc_jax.merging.registry import build_rule
from llfc_jax.merging.rule import Rule
from llfc_jax.types import Model, Variables


def merge(
    models: Sequence[Model],
    base: Model | None = None,
    rule: str | Rule = "mean",
    *,
    network: Model | None = None,
    statistics: Sequence[Any] | None = None,
    options: MergeOptions | None = None,
    **rule_options: object,
) -> Variables:
    """Merges models of one architecture into one.

    Leaf by leaf: leaves that lie in files (`numpy.memmap`, or anything with a shape, a type and
    `__array__`) are read when they are merged. It is computed in float32 or wider, in NumPy for
    what lies on the host and in JAX elsewhere, and comes back in the type of the first model's
    leaf. Integers (counters) and random keys are the first model's. A leaf that stands at two
    places of every model (tied weights) is merged once.

    Args:
        models: trees of arrays of any framework; the first gives structure, shapes and types.
        base: the model that they were fine-tuned from, for the rules that need it.
        rule: one of `RULES`, or a rule with its options.
        network: what the models are modes of, where they are in their framework's own form
            (modules).
        statistics: what some rules need to know of each model; see the rule.
        options: which leaves are merged, and what happens where the models differ in them.
        **rule_options: the fields of the rule's class, where `rule` is a name.

    Returns:
        The merged variables, as a tree like the first model's.

    Raises:
        MergeError: an unknown rule or option; models that do not fit each other, or the rule; a
            model that holds NaN; a merged leaf beyond the range of its type.

    Examples:
        >>> import numpy as np
        >>> from llfc_jax import merging
        >>> base, a, b = ({"w": np.array(w)} for w in ([1.0, 1.0], [2.0, 1.0], [1.0, 3.0]))
        >>> merging.merge([a, b], base, "task_arithmetic", scale=0.5)
        {'w': array([1.5, 2. ])}
    """
    built = build_rule(rule, **rule_options)
    if network is not None:
        view = Network.of(network)
        models = [view.variables(model) for model in models]
        base = None if base is None else view.variables(base)
    return built.merge(prepare_inputs(models, base, built, statistics, options))
