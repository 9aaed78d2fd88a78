"""The permutation spec of a network, read off its trace.

Every axis of every parameter starts as an unknown; each equation ties or pins the axes that it
meets (`rules`). The unknowns that stay free are the groups.

Groups inside groups. Where an axis and another stand side by side in every value that has the
first (the width of a head beside the heads; the channels within a group of a grouped convolution
beside the groups), the first may be permuted differently in each place of the second.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import MatchingError
from llfc_jax.graph import Apply, Graph, trace
from llfc_jax.graph.trace import body, is_literal
from llfc_jax.symmetry.axes import Axis, Fixed, Product, Sum, Units, units
from llfc_jax.symmetry.layouts import RULES
from llfc_jax.symmetry.rules import Axes, Call, fresh_pinned, pin_all, unknown
from llfc_jax.symmetry.spec import Group, PermutationSpec
from llfc_jax.symmetry.terms import Term, atoms, find, pieces, pinned, wild


@dataclasses.dataclass(frozen=True)
class Derived:
    """A spec, and the axes of every value of the trace.

    Attributes:
        spec: the permutation spec.
        values: axes of each value, by its number in the graph's program.
    """

    spec: PermutationSpec
    values: dict[int, tuple[Axis, ...]]


class _Reader:
    """Reads equations and keeps the terms of every value."""

    def __init__(self) -> None:
        self.seen: list[Axes] = []  # of every value, those inside derivative rules included
        self.sums: list[tuple[Sequence[Term], Sequence[Term]]] = []
        self.notes: list[str] = []

    def contracted(self, terms: Sequence[Term], beside: Sequence[Term]) -> None:
        self.sums.append((terms, beside))

    def note(self, words: str) -> None:
        if words not in self.notes:
            self.notes.append(words)

    def constant(self, value: Any) -> Axes:
        """Axes of a known array: only along an axis that it varies on do places count."""
        array = np.asarray(value) if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key) else None
        if array is None:
            return fresh_pinned(np.shape(value), "a random key")
        along = range(array.ndim)
        varies = [bool((array != np.take(array, [0], i)).any()) if array.size else 0 for i in along]
        return tuple(
            pinned(n, "a constant") if varies[i] and n > 1 else wild(n)
            for i, n in enumerate(array.shape)
        )

    def equation(self, eq: Any, inputs: list[Axes], scope: str) -> list[Axes]:
        """Axes of an equation's outputs."""
        outputs = getattr(eq, "outvars", None)
        inner = body(eq)
        if inner is not None:
            return self.inside(inner, inputs, scope)
        avals = [v.aval for v in outputs] if outputs is not None else eq.avals
        shapes = tuple(tuple(getattr(aval, "shape", ())) for aval in avals)
        call = Call(eq.primitive.name, eq.params, shapes, scope)
        found = RULES.get(call.name, unknown)(call, inputs, self)
        self.seen += found
        return found

    def inside(self, jaxpr: Any, inputs: list[Axes], scope: str) -> list[Axes]:
        """Axes of the outputs of a nested jaxpr."""
        consts, jaxpr = getattr(jaxpr, "consts", ()), getattr(jaxpr, "jaxpr", jaxpr)
        env = dict(zip(jaxpr.invars, inputs, strict=True))
        env |= {v: self.constant(c) for v, c in zip(jaxpr.constvars, consts, strict=True)}

        def read(atom: Any) -> Axes:
            return self.constant(np.asarray(atom.val)) if is_literal(atom) else env[atom]

        for eqn in jaxpr.eqns:
            found = self.equation(eqn, [read(a) for a in eqn.invars], scope)
            env |= dict(zip(eqn.outvars, found, strict=True))
        return [read(a) for a in jaxpr.outvars]


@dataclasses.dataclass(frozen=True)
class _Flat:
    """An equation of the flat program together with the shapes of its outputs."""

    primitive: Any
    params: dict[str, Any]
    avals: tuple[Any, ...]


def derive(graph: Graph) -> Derived:
    """Follow the axes of a traced network."""
    program, reader = graph.program, _Reader()
    axes: dict[int, Axes] = {}
    for number in program.leaves:
        axes[number] = tuple(Term(n) if n > 1 else wild(1) for n in program.avals[number].shape)
    axes[program.input] = fresh_pinned(program.avals[program.input].shape, "the input")
    axes |= {n: reader.constant(value) for n, value in program.constants.items()}
    reader.seen += axes.values()
    used = {program.output}
    for eq in program.equations:
        given = [
            reader.constant(np.asarray(a.val)) if is_literal(a) else axes[a] for a in eq.inputs
        ]
        used.update(a for a in eq.inputs if not is_literal(a))
        flat = _Flat(eq.primitive, eq.params, tuple(program.avals[n] for n in eq.outputs))
        found = reader.equation(flat, given, eq.scope)
        for number, terms in zip(eq.outputs, found, strict=True):
            sizes = tuple(find(t).size for t in terms)
            assert sizes == program.avals[number].shape, (eq.name, sizes)
            axes[number] = terms
    pin_all([axes[program.output]], "the output")
    for number in program.leaves:
        if number not in used:
            pin_all([axes[number]], "never used")
    names = _Names(graph, axes, reader)
    values = {number: tuple(map(names.axis, terms)) for number, terms in axes.items()}
    sites = tuple(
        (site.name, values[site.value])
        for site in graph.sites
        if any(True for axis in values[site.value] for _ in units(axis))
    )
    leaves = zip(program.paths, (values[n] for n in program.leaves), strict=True)
    return Derived(
        PermutationSpec(names.groups(), tuple(leaves), sites, tuple(reader.notes)), values
    )


class _Names:
    """Names the free terms: which are groups, and which groups are inside which."""

    def __init__(self, graph: Graph, axes: dict[int, Axes], reader: _Reader) -> None:
        program = graph.program
        leaves = [axes[number] for number in program.leaves]
        handed = [axes[site.value] for site in graph.sites if site.kind == "linear"]
        in_leaves = {a for terms in leaves for t in terms for a in atoms(t)}
        ordered = (a for terms in (*handed, *leaves) for t in terms for a in atoms(t))
        self.terms = list(dict.fromkeys(a for a in ordered if a in in_leaves))
        self.parent = _nesting(self.terms, reader, leaves)
        self.name: dict[Term, str] = {}
        counts: Counter[str] = Counter()
        for term in self.terms:
            stem = _stem(graph, axes, term) + (".inner" if term in self.parent else "")
            counts[stem] += 1
            self.name[term] = stem if counts[stem] == 1 else f"{stem}:{counts[stem]}"

    def groups(self) -> tuple[Group, ...]:
        """Parents first, otherwise in the order in which the network computes them."""
        found = [
            Group(self.name[t], t.size, self.name[self.parent[t]] if t in self.parent else "")
            for t in self.terms
        ]
        return tuple(sorted(found, key=lambda group: bool(group.parent)))

    def axis(self, term: Term) -> Axis:
        """The axis that a term turned out to be."""
        term = find(term)
        if term in self.name:
            return Units(self.name[term], term.size)
        if term.plain:
            return Fixed(term.size, term.reason or ("" if term.wild else "no parameter has it"))
        parts = tuple(map(self.axis, term.parts))
        reasons = [part.reason for part in parts if isinstance(part, Fixed)]
        if len(reasons) == len(parts):
            return Fixed(term.size, next(filter(None, reasons), ""))
        if term.labels is None:
            return Product(parts)
        cuts = np.flatnonzero(np.diff(term.labels)) + 1
        runs = tuple((int(run[0]), len(run)) for run in np.split(term.labels, cuts))
        return Sum(parts, runs)


def _stem(graph: Graph, axes: dict[int, Axes], term: Term) -> str:
    """The first layer that hands out the units of a term, or a parameter that holds them."""
    for site in graph.sites:
        if site.kind == "linear" and any(term in atoms(t) for t in axes[site.value]):
            return site.name
    program = graph.program
    leaves = list(zip(program.paths, (axes[n] for n in program.leaves), strict=True))
    last = [path for path, terms in leaves if terms and term in atoms(terms[-1])]
    held = [path for path, terms in leaves if any(term in atoms(t) for t in terms)]
    parts = (last or held)[0].split("/")
    return "/".join(parts[1:-1] if parts[0] == "params" and len(parts) > 2 else parts)


def _nesting(terms: list[Term], reader: _Reader, leaves: list[Axes]) -> dict[Term, Term]:
    """For each free term, the term in whose places it may be permuted independently."""
    beside: dict[Term, set[Term]] = {}

    def restrict(term: Term, allowed: set[Term]) -> None:
        beside[term] = beside.get(term, allowed) & allowed - {term}

    for axes in reader.seen:
        for piece in pieces(axes):
            counts = Counter(piece)
            for term in counts:
                restrict(term, {other for other, n in counts.items() if n == 1})
    for summed, tied in reader.sums:
        for piece in pieces(summed):
            shared = {*piece, *(a for t in tied for a in atoms(t))}
            for term in piece:
                restrict(term, shared)
    held = [set(piece) for axes in leaves for piece in pieces(axes)]
    parent: dict[Term, Term] = {}
    for term in terms:
        for candidate in terms:
            siblings = {t for t, p in parent.items() if p is candidate}
            if (
                candidate in beside.get(term, ())
                and candidate not in parent
                and term not in parent.values()
                and not any(term in piece and piece & siblings for piece in held)
            ):
                parent[term] = candidate
                break
    return parent


def permutation_spec(apply: Apply, variables: Any, x: Any) -> PermutationSpec:
    """Derive which units of a network may be permuted, from its trace.

    Args:
        apply: `apply(variables, x) -> logits`, the network in evaluation mode.
        variables: its variables, or their shapes.
        x: a batch, or its shape; two samples are enough.

    Returns:
        The spec. `explain()` prints it; `check` proves it on numbers.

    Raises:
        GraphError: the network cannot be traced.

    Example:
        >>> import jax.numpy as jnp
        >>> def apply(w, x):
        ...     return jnp.maximum(x @ w["first"], 0) @ w["second"]
        >>> w = {"first": jnp.ones((3, 4)), "second": jnp.ones((4, 2))}
        >>> permutation_spec(apply, w, jnp.ones((5, 3))).where("first")
        [('first', 1), ('second', 0)]
    """
    return derive(trace(apply, variables, x)).spec


def check(
    spec: PermutationSpec,
    apply: Apply,
    variables: Any,
    x: Any,
    *,
    key: jax.Array | None = None,
    trials: int = 2,
    tolerance: float = 1e-3,
) -> float:
    """Prove a spec on numbers: random permutations must leave the outputs as they were.

    Args:
        spec: the spec to prove.
        apply: the network.
        variables: its variables; random ones prove more than trained or constant ones.
        x: a batch.
        key: for the permutations; `jax.random.key(0)` by default.
        trials: number of random permutations.
        tolerance: largest allowed change, as a share of the largest output.

    Returns:
        The largest change seen, as a share of the largest output.

    Raises:
        MatchingError: the outputs changed by more than the tolerance.
    """
    key = jax.random.key(0) if key is None else key
    run = jax.jit(apply)
    before = run(variables, x)
    worst = 0.0
    for trial in range(trials):
        permutation = spec.random(jax.random.fold_in(key, trial))
        after = run(spec.apply(permutation, variables), x)
        change = jnp.abs(after - before).max() / jnp.maximum(jnp.abs(before).max(), 1e-30)
        worst = max(worst, float(change))
    if not worst <= tolerance:
        raise MatchingError(
            f"the spec is wrong for this network: a permutation changes its output by {worst:.1e} "
            "of its largest value; remove the group at fault (spec.explain() lists them)"
        )
    return worst
