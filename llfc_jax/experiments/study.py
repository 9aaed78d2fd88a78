"""`llfc_jax.study`: the whole report for two modes of any network in one call."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llfc_jax import fields
from llfc_jax.data.inputs import as_splits, hash_arrays
from llfc_jax.experiments.evaluate import Told, Two, ask, check
from llfc_jax.experiments.settings import UNALIGNED, Questions
from llfc_jax.experiments.study_result import Study, provenance
from llfc_jax.experiments.workdir import Nowhere, Workdir, claim
from llfc_jax.frameworks import Network
from llfc_jax.measures import MEASURES
from llfc_jax.measures.accumulate import Progress
from llfc_jax.measures.evaluator import ALPHAS


def study(
    network: Any,
    a: Any,
    b: Any,
    data: Any,
    *,
    train: Any = None,
    measures: str | Sequence[str] = tuple(MEASURES),
    align: str | Sequence[str] = (UNALIGNED,),
    match: Mapping[str, Mapping[str, Any]] | None = None,
    alphas: Sequence[float] = ALPHAS,
    sites: str | Sequence[str] = ("linear", "relu"),
    renormalise: str = "none",
    outside: bool = False,
    over: Any = None,
    seed: int = 0,
    batch_size: int = 500,
    name: str = "pair",
    workdir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Study:
    """The whole report for two modes of any network.

    θ_α = α a + (1 - α) b: α multiplies `a`.

    Args:
        network: what `Network.of` takes: a Linen, NNX or Equinox module, a Haiku transform, a
            function `apply(variables, x)`, or a `Network`. It returns logits [n, classes].
        a: the mode that α multiplies, as its framework has it: variables, a model, parameters.
        b: the other mode.
        data: (x [n, ...], labels int [n]), or batches of such pairs that can be gone through
            again and again, or a `llfc_jax.data.Dataset`; x as the network takes it.
        train: training data, for matching by activations and for renormalising, and measured as
            well where a measure tells train from test. Without it `data` serves there.
        measures: what is measured; `llfc_jax.measures.MEASURES` has the names.
        align: how b is permuted towards a before measuring: "none" and the names of
            `llfc_jax.matching.METHODS`; each gives rows of its own.
        match: options of the matching methods: method -> option -> value.
        alphas: points on the line.
        sites: kinds ("linear", "relu", "module", "all") or name patterns of the layers shown.
        renormalise: "none", "reset" (BatchNorm's statistics anew) or "repair".
        outside: allows α outside [0, 1].
        over: how the loop over α runs; chosen by network and backend if None.
        seed: for what matching draws.
        batch_size: samples at a time, where `data` are arrays; results do not depend on it.
        name: of the pair, in tables and figures.
        workdir: where tables, figures and the page `report.html` go; a study of the same modes
            and data goes on there from what was measured before. None writes nothing.
        progress: called as (done, total, words).

    Raises:
        LlfcError: one of its kinds, with one line, before long work starts: modes that are no
            pair, data that do not fit the network, unknown names.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x = jax.random.normal(jax.random.key(0), (60, 4))
        >>> def apply(w, x):
        ...     return jax.nn.relu(x @ w["in"]) @ w["out"]
        >>> a = {"in": jnp.eye(4), "out": jnp.eye(4, 3)}
        >>> b = jax.tree.map(lambda w: 1.1 * w, a)
        >>> found = study(apply, a, b, (x, apply(a, x).argmax(-1)), measures=["lmc"])
        >>> print(found)
        pair is linearly mode connected (error barrier 0.00 points).
    """
    asked = {
        "measures": _several(measures),
        "align": _several(align),
        "match": match or {},
        "alphas": _several(alphas),
        "sites": _several(sites),
        "over": over,
        "renormalise": renormalise,
        "outside": outside,
        "seed": _plain(seed),
    }
    questions = fields.make(Questions, "study", asked)
    questions.check()
    name = fields.convert(name, str, "study: name")
    batch_size = fields.convert(_plain(batch_size), int, "study: batch_size")
    view = Network.of(network)
    two = Two(name, view.variables(a), view.variables(b))
    splits = as_splits(data, train, batch_size)
    for split in splits.values():
        check(view, two, split, questions)

    def made(store: Workdir | Nowhere) -> Study:
        found = ask(view, [two], splits, questions, store, Told(progress))
        details = {
            "study": {"network": view.framework, **dataclasses.asdict(questions)},
            **provenance(),
        }
        return dataclasses.replace(found, details=details)

    if workdir is None:
        return made(Nowhere())
    identity = {
        "name": name,
        "modes": hash_arrays([two.a, two.b]),
        "data": {split: hash_arrays(batches) for split, batches in splits.items()},
        **dataclasses.asdict(questions),
    }
    with claim(workdir, identity) as held:
        found = made(held)
        found.write(held.path)
    return found


def _several(given: Any) -> Any:
    """A tuple of plain values, where one may stand alone; what is no sequence is left as it is."""
    if isinstance(given, str):
        return (given,)
    return tuple(map(_plain, given)) if isinstance(given, Iterable) else given


def _plain(value: Any) -> Any:
    """A number of Python's own in the place of NumPy's or JAX's."""
    return value.item() if getattr(value, "shape", None) == () else value
