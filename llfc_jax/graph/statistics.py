"""Values that are statistics of others, as norms and softmax compute them."""

from collections.abc import Mapping, Sequence

from llfc_jax.graph.origins import downstream
from llfc_jax.graph.pointwise import IDENTITIES, RULES
from llfc_jax.graph.trace import Program, is_literal

SHAPING = ("reshape", "transpose", "convert_element_type", "broadcast_in_dim", "squeeze", "copy")
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin")


def statistics(program: Program, data: frozenset[int]) -> frozenset[int]:
    """Returns the numbers of sums and extrema over axes, and what is computed of them alone."""
    found: set[int] = set()
    for eq in program.equations:
        held = [a for a in eq.inputs if not is_literal(a) and a in data]
        itself = eq.name == "dot_general" and len(held) == 2 and held[0] == held[1]
        passes = eq.name in SHAPING or eq.name in RULES
        if held and (eq.name in REDUCTIONS or itself or (passes and found.issuperset(held))):
            found.update(eq.outputs)
    return frozenset(found)


def clamps_variance(program: Program, users: Mapping[int, Sequence[int]], value: int) -> bool:
    """Returns whether a `max(v, 0)` only keeps a norm's variance from rounding below zero."""
    while len(users[value]) == 1:
        eq = program.equations[users[value][0]]
        if eq.name in ("sqrt", "rsqrt", "pow"):
            return True
        if eq.name not in (*SHAPING, *IDENTITIES, "add"):
            return False
        value = eq.outputs[0]
    return False


def is_normalising(
    program: Program,
    users: Mapping[int, Sequence[int]],
    function: tuple[int, int],
    made_of: frozenset[int],
    above: Mapping[int, int],
    exponential: bool,
) -> bool:
    """Returns whether a function's value is summed over axes, and the sum then meets what went in.

    So a norm uses a square, and softmax an exponential.

    Args:
        program: the flat trace.
        users: indices of the equations that use a value.
        function: numbers of what goes in and of what comes out.
        made_of: numbers of the statistics.
        above: for each value, the index of the latest linear equation that it depends on.
        exponential: whether the function is an exponential, whose sum may meet its own value; any
            other function may be normalised as well, and stays an activation.
    """
    source, value = function
    sums, queue, seen = set[int](), [value], {value}
    after = frozenset[int]() if exponential else downstream(program, value)

    def meets(other: int) -> bool:
        return other not in after and above.get(other) == above.get(source)

    while queue:
        number = queue.pop()
        for i in users[number]:
            eq = program.equations[i]
            if eq.name in REDUCTIONS or (number in sums and eq.outputs[0] in made_of):
                sums.update(eq.outputs)
            elif number in sums:
                others = [a for a in eq.inputs if not is_literal(a) and a not in made_of]
                if eq.name in RULES and any(map(meets, others)):
                    return True
                if eq.name not in SHAPING:
                    continue
            elif (
                exponential
                and eq.name == "div"
                and any(not is_literal(a) and a in made_of for a in eq.inputs[1:])
            ):
                return True
            elif eq.name not in SHAPING:
                continue
            queue += [n for n in eq.outputs if n not in seen]
            seen.update(eq.outputs)
    return False
