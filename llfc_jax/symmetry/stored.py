"""Reads permutations, and what goes beyond them, from the files that keep them."""

import os

import jax
import jax.numpy as jnp
import numpy as np

from llfc_jax.errors import MatchingError
from llfc_jax.symmetry.beyond.transport import Transport
from llfc_jax.symmetry.spec import PermutationSpec

Stored = tuple[PermutationSpec, dict[str, jax.Array]] | Transport


def load(path: str | os.PathLike[str]) -> Stored:
    """Returns what `PermutationSpec.save` or `Transport.save` wrote.

    Returns:
        Spec and permutation; or the transport, where more than permutations was matched.

    Raises:
        MatchingError: the file is missing, damaged, or holds no valid permutation.
    """
    try:
        # Opened here, because NumPy leaves a damaged file open.
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            if "symmetry" in file:
                return Transport.read(file)
            spec = PermutationSpec.from_json(str(file["spec"]))
            found = {
                name.removeprefix("group:"): jnp.asarray(file[name])
                for name in file.files
                if name.startswith("group:")
            }
        spec.validate(found)
    except Exception as error:  # damaged bytes make zipfile, zlib and NumPy raise almost anything
        words = str(error).partition("\n")[0]
        raise MatchingError(f"{path} holds no saved permutation: {words}") from error
    return spec, {group.name: found[group.name] for group in spec.groups}
