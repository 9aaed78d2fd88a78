"""How a JAX network uses each of its weights, read off its trace.

The trace is followed once, into calls, loops and branches too, and every value is described by
what a layout needs: a weight seen through transposes, reshapes, flips and casts (`WeightView`), or
data, whose axis of channels and flattened images are kept in mind (`DataView`). Where a weight
meets data, the equation says which of its axes are inputs, outputs, positions or rows.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import jax
from jax.extend import core

from llfc_jax.types import Apply, Variables

LOOKUPS = ("gather", "dynamic_slice")
SLICES = ("slice", "dynamic_slice")
ELEMENTWISE = (
    *(
        "add",
        "add_any",
        "sub",
        "mul",
        "div",
        "neg",
        "max",
        "min",
        "abs",
        "sign",
        "clamp",
        "select_n",
    ),
    *("sqrt", "rsqrt", "square", "integer_pow", "pow", "exp", "log", "tanh", "logistic"),
    *("convert_element_type", "copy", "reduce_precision"),
)


@dataclasses.dataclass(frozen=True)
class WeightView:
    """A value that is a weight, laid out anew.

    Attributes:
        leaf: number of the weight.
        axes: for each axis of the value, the axes of the weight that lie along it.
        flipped: axes of the weight that are reversed.
    """

    leaf: int
    axes: tuple[tuple[int, ...], ...]
    flipped: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class DataView:
    """A value that depends on the input.

    Attributes:
        channels: its axis of channels, where a convolution or an image input says which.
        images: axis -> (shape, axis of channels) of the image that was flattened into it.
    """

    channels: int | None = None
    images: Mapping[int, tuple[tuple[int, ...], int]] = dataclasses.field(default_factory=dict)


View: TypeAlias = WeightView | DataView | None


@dataclasses.dataclass(frozen=True)
class WeightUse:
    """What one equation does with a weight; axes are those of the weight.

    Attributes:
        kind: a matrix product, a convolution, or the lookup of rows.
        outputs: axes of the outputs (of a lookup: the rows).
        inputs: axes that are summed over (of a lookup: the features).
        space: axes of positions, in order.
        flipped: axes that are reversed before the product.
        transposed: whether it is a transposed convolution.
        groups: of a convolution.
        image: shape of the image that was flattened along the inputs, without samples.
        channels: its axis of channels.
    """

    kind: Literal["dense", "conv", "lookup"]
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    space: tuple[int, ...] = ()
    flipped: frozenset[int] = frozenset()
    transposed: bool = False
    groups: int = 1
    image: tuple[int, ...] = ()
    channels: int = 0


def trace_weights(
    apply: Apply, variables: Variables, x: jax.Array | jax.ShapeDtypeStruct
) -> tuple[list[int], dict[int, set[WeightUse]]]:
    """Returns the leaves' numbers in the order of first use, and how each is used.

    Args:
        apply: the network.
        variables: its variables; only their shapes are used.
        x: a batch for it, or its shape.
    """
    closed = jax.make_jaxpr(lambda v, x: apply(v, x))(variables, x)
    count = len(jax.tree.leaves(variables))
    tracer, inputs = _Tracer(), []
    for number, var in enumerate(closed.jaxpr.invars):
        rank = len(_shape(var))
        if number < count:
            inputs.append(WeightView(number, tuple((axis,) for axis in range(rank))))
        else:
            inputs.append(DataView(rank - 1 if rank == 4 else None))
    tracer.follow(closed.jaxpr, inputs)
    return list(tracer.order), tracer.uses


class _Tracer:
    """Follows views through a jaxpr and collects the uses of weights."""

    def __init__(self) -> None:
        self.order: dict[int, None] = {}
        self.uses: dict[int, set[WeightUse]] = {}

    def follow(self, jaxpr: core.Jaxpr, inputs: Sequence[View]) -> list[View]:
        """Returns the views of a jaxpr's outputs."""
        views: dict[Any, View] = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: core.Var | core.Literal) -> View:
            return None if isinstance(atom, core.Literal) else views.get(atom)

        for eqn in jaxpr.eqns:
            given = [read(atom) for atom in eqn.invars]
            views.update(zip(eqn.outvars, self._outputs(eqn, given), strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _outputs(self, eqn: core.JaxprEqn, given: list[View]) -> list[View]:
        name = eqn.primitive.name
        lost: list[View] = [None] * len(eqn.outvars)
        data = DataView() if any(isinstance(view, DataView) for view in given) else None
        if name == "scan":
            consts, carry = eqn.params["num_consts"], eqn.params["num_carry"]
            inner = (
                given[:consts]
                + [data] * carry
                + [_without_first(v) for v in given[consts + carry :]]
            )
            self.follow(eqn.params["jaxpr"].jaxpr, inner)
            return [data] * len(lost)
        if name == "while":
            first, body = eqn.params["cond_nconsts"], eqn.params["body_jaxpr"].jaxpr
            consts = given[first : first + eqn.params["body_nconsts"]]
            self.follow(body, consts + [data] * (len(body.invars) - len(consts)))
            return [data] * len(lost)
        if name == "cond":
            outputs = [self.follow(branch.jaxpr, given[1:]) for branch in eqn.params["branches"]]
            return outputs[0]
        for inner in _bodies(eqn):
            if len(inner.invars) == len(given):
                return self.follow(inner, given)
        for view in given:  # a call uses its arguments where its body does
            if isinstance(view, WeightView):
                self.order.setdefault(view.leaf)
        looks_up = name in LOOKUPS and isinstance(given[0], WeightView) and data is not None
        if looks_up or name in ("dot_general", "conv_general_dilated"):
            return [self._product(eqn, given) or data]
        if data is not None:
            return [_follow_data(eqn, given, _shape(var)) for var in eqn.outvars]
        weights = [view for view in given if isinstance(view, WeightView)]
        if not weights or len(eqn.outvars) != 1:
            return lost
        return [_follow_weight(eqn, given)]

    def _product(self, eqn: core.JaxprEqn, given: list[View]) -> View:
        """Notes the use of a weight by data; returns the view of the product if it says more."""
        if eqn.primitive.name == "conv_general_dilated":
            numbers, (data, weight) = eqn.params["dimension_numbers"], given[:2]
            if isinstance(weight, WeightView) and isinstance(data, DataView):
                self._add(weight, _conv_use(eqn, weight))
            return DataView(numbers.out_spec[1]) if isinstance(data, DataView) else None
        if eqn.primitive.name in LOOKUPS:
            table, sizes = (
                given[0],
                zip(eqn.params["slice_sizes"], _shape(eqn.invars[0]), strict=True),
            )
            rows = [i for i, (taken, size) in enumerate(sizes) if taken == 1 < size]
            if isinstance(table, WeightView) and len(rows) == 1:
                kept = [axes for i, axes in enumerate(table.axes) if i != rows[0]]
                self._add(table, WeightUse("lookup", table.axes[rows[0]], sum(kept, ())))
            return None
        for side in (0, 1):
            weight, data = given[side], given[1 - side]
            if isinstance(weight, WeightView) and isinstance(data, DataView):
                self._add(weight, _dense_use(eqn, weight, data, side))
        return None

    def _add(self, weight: WeightView, use: WeightUse | None) -> None:
        if use is not None:
            self.uses.setdefault(weight.leaf, set()).add(use)


def _conv_use(eqn: core.JaxprEqn, weight: WeightView) -> WeightUse | None:
    outputs, inputs, *space = (weight.axes[i] for i in eqn.params["dimension_numbers"].rhs_spec)
    if any(len(axes) != 1 for axes in (outputs, inputs, *space)):
        return None
    dilated = any(step != 1 for step in eqn.params["lhs_dilation"])
    return WeightUse(
        "conv",
        outputs,
        inputs,
        tuple(axis for axes in space for axis in axes),
        weight.flipped,
        dilated or bool(weight.flipped),
        eqn.params["feature_group_count"],
    )


def _dense_use(
    eqn: core.JaxprEqn, weight: WeightView, data: DataView, side: int
) -> WeightUse | None:
    contracted, batch = eqn.params["dimension_numbers"]
    if batch[side] or weight.flipped:
        return None
    inputs = tuple(axis for i in contracted[side] for axis in weight.axes[i])
    rest = [axes for i, axes in enumerate(weight.axes) if i not in contracted[side]]
    outputs = tuple(axis for axes in rest for axis in axes)
    if set(inputs) & set(outputs) or len(set(inputs)) != len(inputs):
        return None
    image, channels = (), 0
    if len(contracted[side]) == 1:
        image, channels = data.images.get(contracted[1 - side][0], ((), 0))
    # A weight split into pieces, such as heads, has its axis at several places.
    return WeightUse("dense", tuple(dict.fromkeys(outputs)), inputs, image=image, channels=channels)


def _follow_weight(eqn: core.JaxprEqn, given: list[View]) -> View:
    """Returns the view of the one output of an equation on weights and constants."""
    shape = _shape(eqn.outvars[0])
    name, view = eqn.primitive.name, given[0]
    if name == "transpose" and isinstance(view, WeightView):
        order = eqn.params["permutation"]
        return dataclasses.replace(view, axes=tuple(view.axes[i] for i in order))
    if name == "rev" and isinstance(view, WeightView):
        turned = {axis for i in eqn.params["dimensions"] for axis in view.axes[i]}
        return dataclasses.replace(view, flipped=view.flipped ^ turned)
    if name == "broadcast_in_dim" and isinstance(view, WeightView):
        places = eqn.params["broadcast_dimensions"]
        axes = [view.axes[places.index(i)] if i in places else () for i in range(len(shape))]
        return dataclasses.replace(view, axes=tuple(axes))
    if name in ("reshape", "squeeze", "expand_dims") and isinstance(view, WeightView):
        groups = _match_axes(_shape(eqn.invars[0]), shape)
        axes: list[tuple[int, ...]] = [()] * len(shape)
        for before, after in groups:
            if len(before) > 1 and len(after) > 1:
                return None
            for i in after:
                axes[i] = tuple(axis for j in before for axis in view.axes[j])
        return dataclasses.replace(view, axes=tuple(axes))
    if name in SLICES:
        return view
    same = [
        view
        for view, atom in zip(given, eqn.invars, strict=True)
        if isinstance(view, WeightView) and _shape(atom) == shape
    ]
    if name not in ELEMENTWISE:
        return None
    return max(same, key=lambda view: sum(map(len, view.axes)), default=None)


def _follow_data(eqn: core.JaxprEqn, given: list[View], shape: tuple[int, ...]) -> DataView:
    """Returns the view of an output that depends on data."""
    pairs = zip(given, eqn.invars, strict=True)
    view, before = next((v, _shape(a)) for v, a in pairs if isinstance(v, DataView))
    name = eqn.primitive.name
    if name == "transpose":
        moved = {old: new for new, old in enumerate(eqn.params["permutation"])}
    elif name == "broadcast_in_dim":
        moved = dict(enumerate(eqn.params["broadcast_dimensions"]))
    elif name in ("reshape", "squeeze", "expand_dims"):
        return _reshape_data(view, before, shape)
    elif len(before) == len(shape):
        moved = {axis: axis for axis in range(len(shape))}
    elif "axes" in eqn.params:
        kept = [axis for axis in range(len(before)) if axis not in eqn.params["axes"]]
        moved = {old: new for new, old in enumerate(kept)}
    else:
        return DataView()
    images = {moved[a]: i for a, i in view.images.items() if a in moved}
    images = {a: i for a, i in images.items() if shape[a] == math.prod(i[0])}
    return DataView(None if view.channels is None else moved.get(view.channels), images)


def _reshape_data(view: DataView, before: tuple[int, ...], after: tuple[int, ...]) -> DataView:
    """Follows the axis of channels through a reshape, and notes images that it flattens."""
    channels, images = None, {}
    for old, new in _match_axes(before, after):
        if len(old) == len(new) == 1:
            if old[0] == view.channels:
                channels = new[0]
            if old[0] in view.images:
                images[new[0]] = view.images[old[0]]
        elif len(new) == 1 and view.channels in old:
            images[new[0]] = tuple(before[i] for i in old), old.index(view.channels)
    if channels is None and view.channels is not None and before[view.channels] == 1:
        ones = [i for i, size in enumerate(after) if size == 1]
        channels = ones[-1] if ones else None
    return DataView(channels, images)


def _match_axes(
    before: tuple[int, ...], after: tuple[int, ...]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yields the smallest groups of axes that a reshape turns into each other, ones left out."""
    old = [i for i, size in enumerate(before) if size != 1]
    new = [i for i, size in enumerate(after) if size != 1]
    while old and new:
        a, b = [old.pop(0)], [new.pop(0)]
        while (here := math.prod(before[i] for i in a)) != math.prod(after[i] for i in b):
            if here < math.prod(after[i] for i in b):
                a.append(old.pop(0))
            else:
                b.append(new.pop(0))
        yield a, b


def _without_first(view: View) -> View:
    """Returns the view of one entry along the first axis."""
    if isinstance(view, WeightView):
        return dataclasses.replace(view, axes=view.axes[1:])
    return DataView() if isinstance(view, DataView) else None


def _bodies(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Yields the jaxprs that an equation calls."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = eqn.params.get(name)
        if inner is not None:
            yield getattr(inner, "jaxpr", inner)


def _shape(atom: core.Var | core.Literal) -> tuple[int, ...]:
    """Returns the shape of a value."""
    aval: Any = atom.aval
    return tuple(aval.shape)
