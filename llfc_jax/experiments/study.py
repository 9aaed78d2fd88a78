"""`llfc_jax.study`: the whole report for two modes of any network in one call."""

import dataclasses
import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from llfc_jax import fields
from llfc_jax.data.inputs import Data, as_batches, as_splits, hash_arrays
from llfc_jax.errors import ConfigError, LlfcError, unknown
from llfc_jax.experiments.evaluate import Evaluation, check_pair_on_data, evaluate_pairs
from llfc_jax.experiments.merges import check_rules
from llfc_jax.experiments.provenance import provenance
from llfc_jax.experiments.settings import (
    EVERY_MEASURE,
    UNALIGNED,
    Settings,
    choose_measures,
)
from llfc_jax.experiments.study_result import Study
from llfc_jax.experiments.workdir import NullWorkdir, Workdir, claim
from llfc_jax.frameworks import Network
from llfc_jax.measures import EvalOptions
from llfc_jax.merging import Rule
from llfc_jax.merging.prepare import check_patterns, name_leaves
from llfc_jax.pair import ModePair
from llfc_jax.progress import CallbackReporter, choose_reporter
from llfc_jax.types import Model, ProgressFn


def study(
    network: Model,
    a: Model,
    b: Model,
    data: Data,
    *,
    train: Data | None = None,
    measures: str | Sequence[str] = EVERY_MEASURE,
    align: str | Sequence[str] = (UNALIGNED,),
    match: Mapping[str, Mapping[str, Any]] | None = None,
    options: EvalOptions | None = None,
    merge: str | Sequence[str | Rule] = (),
    base: Model | None = None,
    tasks: Sequence[Data] | None = None,
    heads: Sequence[str] = (),
    seed: int = 0,
    name: str = "pair",
    workdir: str | os.PathLike[str] | None = None,
    progress: ProgressFn | bool | None = None,
    **changes: object,
) -> Study:
    """Measures two modes of any network, aligned in any way, and reports on them.

    θ_α = α a + (1 - α) b: α multiplies `a`.

    Args:
        network: what `Network.of` takes: a Linen, NNX or Equinox module, a Haiku transform, a
            function `apply(variables, x)`, or a `Network`. It returns what the task judges: logits
            [n, classes] by default.
        a: the mode that α multiplies, as its framework has it: variables, a model, parameters.
        b: the other mode.
        data: (x [n, ...], labels int [n]), or batches of such pairs that can be gone through
            again and again, or a `llfc_jax.data.Dataset`; x as the network takes it, an array or a
            tree of them. `llfc_jax.data.inputs.as_batches` lists all forms.
        train: training data, for matching by activations and for renormalising, and measured as
            well where a measure distinguishes train from test. Without it `data` serves there.
        measures: what is measured; `llfc_jax.measures.MEASURES` has the names. By default every
            one that can honour the options; the result says which were left out.
        align: how b is aligned with a before it is measured: "none" and the names of
            `llfc_jax.matching.METHODS`; each gives rows of its own.
        match: options of the matching methods: method -> option -> value.
        options: how everything is measured.
        merge: rules by which a and b are merged, by name (`llfc_jax.merging.RULES`), with options
            as in "ties(density=0.5)", or built; the result says where each merge breaks.
        base: the network that both were fine-tuned from, for the rules and the measure (`ctl`)
            that need it.
        tasks: test data of a's task and of b's, where they were trained on different ones.
        heads: parameters that each network has for its own task, by their paths or what holds
            them ("params/head"): they are not merged, and each task is measured with its own.
        seed: of whatever matching draws at random.
        name: of the pair, in tables and figures.
        workdir: where tables, figures and the page `report.html` go; a study of the same modes
            and data goes on there from what was measured before. None writes nothing.
        progress: a callback (done, total, words), or whether progress is shown; by default it is
            in a terminal or a notebook.
        **changes: single fields of `EvalOptions`, instead of or on top of `options`: `alphas`,
            `sites`, `task` (how outputs are judged), `per`, `renormalise`, `extrapolate`,
            `alpha_loop`, `splits`, `batch_size`, `precision`, `measure_options`.

    Raises:
        LlfcError: one of its kinds, with one line, before long work starts: modes that are no
            pair, data that do not fit the network, unknown names.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> x = jax.random.normal(jax.random.key(0), (60, 4))
        >>> def apply(w, x):
        ...     return jax.nn.relu(x @ w["in"]) @ w["out"]
        >>> a = {"in": jnp.eye(4), "out": jnp.eye(4, 3)}
        >>> b = jax.tree.map(lambda w: 1.1 * w, a)
        >>> result = study(apply, a, b, (x, apply(a, x).argmax(-1)), measures=["lmc"])
        >>> str(result).partition(":")[0]
        'pair is linearly mode connected'
    """
    settings = build_settings(measures, align, match or {}, seed, options, changes, merge)
    name = fields.convert(name, str, "study: name")
    view = Network.of(network)
    of_base = None if base is None else view.variables(base)
    pair = ModePair(name, view.variables(a), view.variables(b), base=of_base)
    check_rules(settings.merge, {name: base is not None})
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    check_patterns(heads, [name_leaves(pair.a, "a")])
    splits = as_splits(data, train, settings.eval.batch_size)
    if tasks is not None:
        if len(tasks) != 2:
            raise ConfigError(
                f"study: tasks must be the data of a's and of b's task, not {len(tasks)}"
            )
        both = zip(("task_a", "task_b"), tasks, strict=True)
        splits |= {split: as_batches(of, settings.eval.batch_size) for split, of in both}

    def evaluate(store: Workdir | NullWorkdir) -> Study:
        details = {
            "study": {"network": view.framework, **fields.to_dict(settings)},
            **provenance(),
        }
        with choose_reporter(progress) as reporter:
            reporter.say(describe_work(view, pair, settings))
            evaluation = Evaluation(view, splits, settings, store, reporter, heads=heads)
            return dataclasses.replace(evaluate_pairs(evaluation, [pair]), details=details)

    null = Evaluation(view, splits, settings, NullWorkdir(), CallbackReporter())
    check_pair_on_data(null, pair)
    if workdir is None:
        return evaluate(NullWorkdir())
    identity = {
        "name": name,
        "modes": hash_arrays([pair.a, pair.b, *([] if of_base is None else [of_base])]),
        "data": {split: hash_arrays(batches) for split, batches in splits.items()},
        **({"heads": heads} if heads else {}),
        **fields.to_dict(settings),
    }
    with claim(workdir, identity) as held:
        result = evaluate(held)
        result.write(held.path)
    return result


def describe_work(network: Network, pair: ModePair, settings: Settings) -> str:
    """Returns what a study is about to do, in a line."""
    size = sum(leaf.size for leaf in jax.tree.leaves(pair.a))
    return (
        f"study of two networks ({network.framework}, {size:,} parameters): alignments "
        f"{', '.join(settings.align)}; measures {', '.join(settings.measures)}; "
        f"on {jax.devices()[0].device_kind}"
    )


def build_settings(
    measures: str | Sequence[str],
    align: str | Sequence[str],
    match: Mapping[str, Mapping[str, Any]],
    seed: int,
    options: EvalOptions | None,
    changes: Mapping[str, Any],
    merge: str | Sequence[str | Rule] = (),
) -> Settings:
    """Returns the checked settings of a call of `study`.

    Raises:
        ConfigError: an unknown argument, name or option, or a value of the wrong type.
    """
    known = {field.name for field in dataclasses.fields(EvalOptions)}
    for change in changes:
        if change not in known:
            own = inspect.signature(study).parameters.keys() - {"changes"}
            raise ConfigError(unknown("argument of study", change, known | own))
    plain = {name: _plain_values(value) for name, value in changes.items()}
    if options is not None and not isinstance(options, EvalOptions):
        raise ConfigError(f"study: options must be an EvalOptions, not a {type(options).__name__}")
    try:
        changed = dataclasses.replace(options or EvalOptions(), **plain)
    except LlfcError as error:
        raise ConfigError(f"study: {error}") from error
    given = {
        "measures": _plain_values(measures),
        "align": _plain_values(align),
        "match": match,
        "eval": changed,
        "seed": _plain_values(seed),
        "merge": (merge,) if isinstance(merge, Rule) else _plain_values(merge),
    }
    for several in ("measures", "align", "merge"):
        if isinstance(given[several], str):
            given[several] = (given[several],)
    settings = fields.make(Settings, "study", given)
    chosen = choose_measures(settings.measures, settings.eval)
    settings = dataclasses.replace(settings, measures=chosen)
    settings.check()
    return settings


def _plain_values(value: Any) -> Any:
    """Returns Python's own numbers in place of NumPy's or JAX's; a sequence as a tuple."""
    if getattr(value, "shape", None) == ():
        return value.item()
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        return value
    return tuple(map(_plain_values, value))
