"""Parameters say their types: `Any` alone is rare, and only where no type is honest."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "llfc_jax"
ALLOWED = 60


def parameters(code):
    """Yields every parameter of every function, those behind stars included."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            taken = node.args
            named = (*taken.posonlyargs, *taken.args, *taken.kwonlyargs)
            yield from (p for p in (*named, taken.vararg, taken.kwarg) if p is not None)


def is_bare_any(parameter):
    annotation = parameter.annotation
    return annotation is not None and ast.unparse(annotation) in ("Any", "typing.Any")


def test_parameters_of_every_kind_are_counted():
    code = "async def f(a: Any, /, b: int, *c: Any, d: typing.Any, e: list[Any], **g: Any): ..."
    assert [p.arg for p in parameters(code) if is_bare_any(p)] == ["a", "d", "c", "g"]


def test_bare_any_is_rare():
    found = [
        f"{file.relative_to(PACKAGE)}:{parameter.lineno} {parameter.arg}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for parameter in parameters(file.read_text("utf-8"))
        if is_bare_any(parameter)
    ]
    assert len(found) <= ALLOWED, found
