"""Small checks that several files of `llfc_jax.data` share."""

from llfc_jax.errors import DataError


def limit_samples(total: int, wanted: int | None, what: str) -> int:
    """Returns how many of `total` samples to take: `wanted`, or all if it is None.

    Raises:
        DataError: if `wanted` is not a whole number from 1 to `total`; `what` names it.
    """
    if wanted is None:
        return total
    check_positive(wanted, what)
    if wanted > total:
        raise DataError(f"{what} is {wanted}, but there are only {total} samples")
    return wanted


def check_positive(value: int, what: str) -> None:
    """Checks that a value is a positive whole number.

    Raises:
        DataError: if it is not; `what` names it.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DataError(f"{what} must be a positive whole number, not {value!r}")


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message that is not empty, or its type."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)
