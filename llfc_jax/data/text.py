"""Text as characters: an embedded excerpt, or the user's own file.

The excerpt, `text.txt.xz` beside this file, is 399,445 characters of The Jargon File, version
4.4.7, 29 Dec 2003 (maintained by Eric S. Raymond, http://catb.org/jargon/), which says of itself:
"This document (the Jargon File) is in the public domain, to be freely used, shared, and modified."
It was taken from the Debian package jargon-text 4.4.7-4.1: chapters 1, 2 and 4 to 11, appendices B
and C, then the glossary's entries from A on, until 400,000 characters were full.

Changed here: lines of a paragraph are joined, characters are folded to ASCII, braces around
cross-references, headings of entries, paragraphs with addresses, and paragraphs with words that not
everyone likes to read are left out.
"""

import lzma
from pathlib import Path

import numpy as np

from llfc_jax.data.dataset import Split
from llfc_jax.data.registry import DatasetRequest, RawDataset, dataset
from llfc_jax.errors import DataError

LENGTH = 64
TRAIN_SHARE = 0.9


@dataset("text", takes_path=True, takes_length=True)
def read_text(request: DatasetRequest) -> RawDataset:
    """Reads text, character by character: the embedded excerpt, or the file at `data.path`.

    A sample is `request.length` characters (64 if None), int32 [n, length], its target the
    characters that follow each of them: the text is cut into such pieces, the first nine tenths of
    it to train on, the rest to test. The vocabulary is the bytes that occur, in their order.

    Raises:
        DataError: the file cannot be read, or is too short for two samples.
    """
    if request.path is None:
        text = lzma.decompress(Path(__file__).with_name("text.txt.xz").read_bytes())
    else:
        try:
            text = Path(request.path).expanduser().read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {request.path}: {error.strerror or error}") from error
    length = request.length or LENGTH
    vocabulary, tokens = np.unique(np.frombuffer(text, np.uint8), return_inverse=True)
    border = int(len(tokens) * TRAIN_SHARE)
    parts = (tokens[:border], tokens[border:])
    if any(len(part) <= length for part in parts):
        raise DataError(f"a text of {len(text)} characters is too short for samples of {length}")
    train, test = (_cut(part.astype(np.int32), length) for part in parts)
    return RawDataset(train, test, max(2, len(vocabulary)))


def _cut(tokens: np.ndarray, length: int) -> Split:
    """Returns pieces of a text, and of the same text one token further."""
    n = (len(tokens) - 1) // length
    pieces = (tokens[shift : shift + n * length].reshape(n, length) for shift in (0, 1))
    return Split(*map(np.ascontiguousarray, pieces))
