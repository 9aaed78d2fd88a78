"""Every matching method by name: what a config's `align` selects from.

A new method is one entry in `METHODS`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax

from llfc_jax.errors import MatchingError, unknown
from llfc_jax.graph import Apply
from llfc_jax.matching.data import Batches
from llfc_jax.matching.methods.activation import activation_matching
from llfc_jax.matching.methods.commutativity import commutativity_matching
from llfc_jax.matching.methods.output import output_matching
from llfc_jax.matching.methods.ste import ste_matching
from llfc_jax.matching.methods.weight import weight_matching
from llfc_jax.matching.result import Matching
from llfc_jax.symmetry.derive import permutation_spec
from llfc_jax.symmetry.spec import PermutationSpec


@dataclasses.dataclass(frozen=True)
class Method:
    """A matching method.

    Attributes:
        function: what a library user calls; its keyword-only arguments are the options.
        run: (key, apply, spec, a, b, batches, options) -> Matching.
        words: one line for lists and reports.
    """

    function: Callable[..., Matching]
    run: Callable[..., Matching]
    words: str

    @property
    def options(self) -> dict[str, Any]:
        """Option -> default."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


METHODS: dict[str, Method] = {
    "weight": Method(
        weight_matching,
        lambda key, apply, spec, a, b, batches, options: weight_matching(
            key, spec, a, b, **options
        ),
        "weights of B towards weights of A, by coordinate ascent; needs no data",
    ),
    "activation": Method(
        activation_matching,
        lambda key, apply, spec, a, b, batches, options: activation_matching(
            apply, spec, a, b, batches, **options
        ),
        "activations of B towards activations of A, over the train split",
    ),
    "ste": Method(
        ste_matching,
        lambda key, apply, spec, a, b, batches, options: ste_matching(
            key, apply, spec, a, b, batches, **options
        ),
        "straight-through estimator: trains for a low loss at the midpoint",
    ),
    "commutativity": Method(
        commutativity_matching,
        lambda key, apply, spec, a, b, batches, options: commutativity_matching(
            key, apply, spec, a, b, batches, **options
        ),
        "the product of weight and feature differences, from weight's and activation's ends",
    ),
    "output": Method(
        output_matching,
        lambda key, apply, spec, a, b, batches, options: output_matching(
            key, apply, spec, a, b, batches, **options
        ),
        "outputs of the midpoint towards the mean of A's and B's; needs no labels",
    ),
}


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """See that a method exists and has these options, before anything long starts.

    Raises:
        MatchingError: an unknown method or option; the line names the nearest.
    """
    if method not in METHODS:
        raise MatchingError(unknown("matching method", method, METHODS))
    for name in options:
        if name not in METHODS[method].options:
            raise MatchingError(
                unknown(f"option of {method} matching", name, METHODS[method].options)
            )


def align(
    method: str,
    key: jax.Array,
    apply: Apply,
    spec: PermutationSpec | None,
    a: Any,
    b: Any,
    batches: Batches,
    **options: Any,
) -> Matching:
    """Permute B towards A by a method chosen by name.

    Args:
        method: a name in `METHODS`.
        key: for whatever the method draws.
        apply: `apply(variables, x) -> logits`.
        spec: which units may move; derived from the network's trace if None.
        a: the mode that stays.
        b: the mode that is permuted.
        batches: train data, pairs (x, y), for the methods that need it.
        **options: the method's own; `METHODS[method].options` lists them.

    Returns:
        The method's `Matching`; `spec.apply(matching.permutation, b)` is the aligned B.

    Raises:
        MatchingError: an unknown method or option, or see the method.
    """
    check_options(method, options)
    if spec is None:
        x, _ = next(iter(batches))
        spec = permutation_spec(apply, a, x)
    return METHODS[method].run(key, apply, spec, a, b, batches, options)
