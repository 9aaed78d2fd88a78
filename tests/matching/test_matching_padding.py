"""Padding never counts: every method that reads data, and the statistics that merge rules read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matching_nets import equal
from padded_text import attend, language_weights, padded
from scipy.optimize import linear_sum_assignment

from llfc_jax import merging, tasks
from llfc_jax.errors import DataError, MergeError
from llfc_jax.matching import align
from llfc_jax.symmetry import permutation_spec

KEY = jax.random.key(0)
A, B = language_weights(0), language_weights(1)
TOKENS = tasks.build("tokens")
OPTIONS = {
    "activation": {},
    "output": {"start": "identity", "steps": 3, "rounds": 1},
    "commutativity": {"start": "identity", "steps": 3, "rounds": 1},
    "ste": {"epochs": 1},
    "beyond": {"method": "activation", "symmetry": "full"},
    "learned": {"steps": 20, "samples": 4, "batch_size": 4, "permutations": False},
}


def match(method, batches, network=attend, task=TOKENS, **options):
    options = {"method": method, **OPTIONS[method], **options}
    return align(key=KEY, network=network, a=A, b=B, batches=batches, task=task, **options)


SLOW = ("ste", "learned")
METHODS = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in OPTIONS]


@pytest.mark.parametrize("method", METHODS)
def test_matching_does_not_read_padding(method):
    few, many = (match(method, padded(to=to)) for to in (6, 12))
    assert equal(few.permutation, many.permutation)
    np.testing.assert_allclose(few.history, many.history, rtol=1e-4)


def test_correlations_are_those_of_the_tokens_that_count():
    found = match("activation", padded(to=12))
    spec = permutation_spec(attend, A, padded()[0])
    units = {"in": [], "wide": []}
    for w, of in ((A, 0), (B, 1)):
        for name in units:
            units[name].append([])
        for batch in padded(to=12):
            mask = batch["attention_mask"]
            h, weight = w["embed"].astype(float)[batch["input_ids"]], mask[..., None]
            mean = (h * weight).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
            inner = np.tanh((h + mean) @ w["in"])
            wide = np.maximum((h + inner @ w["back"]) @ w["wide"], 0)
            for name, value in (("in", inner), ("wide", wide)):
                units[name][of].append(value[mask])
    for name, (p, q) in units.items():
        p, q = np.concatenate(p), np.concatenate(q)
        scores = np.corrcoef(p, q, rowvar=False)[: p.shape[1], p.shape[1] :]
        (group,) = (g.name for g in spec.groups if (name, 1) in spec.where(g.name))
        _, columns = linear_sum_assignment(np.nan_to_num(scores), maximize=True)
        np.testing.assert_array_equal(found.permutation[group], columns)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_padding_alone_is_left_out(method):
    empty = {name: np.zeros_like(part) for name, part in padded(to=6)[0].items()}
    empty["labels"] = empty["labels"] - 100
    alone, both = match(method, padded(to=6)), match(method, [*padded(to=6), empty])
    assert equal(alone.permutation, both.permutation)
    np.testing.assert_allclose(alone.history, both.history, rtol=1e-5)
    with pytest.raises(DataError, match="no batch"):
        match(method, [empty])


def pooled(w, x):
    """One output for each text, of as many numbers as the texts have tokens."""
    mask = x["attention_mask"][..., None].astype(jnp.float32)
    return (attend(w, x) * mask).sum(1)[:, :6] / mask.sum(1)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["output", "ste"])
def test_outputs_of_whole_texts_are_not_masked_by_their_tokens(method):
    """Their axis is as long as the tokens' by chance."""
    batches = [{**batch, "labels": np.ones((len(batch["labels"]), 6))} for batch in padded(to=6)]
    with_mask = match(method, batches, pooled, tasks.build("regression"))
    longer = [{**batch, "labels": np.ones((len(batch["labels"]), 6))} for batch in padded(to=12)]
    more = match(method, longer, pooled, tasks.build("regression"))
    np.testing.assert_allclose(with_mask.history, more.history, rtol=1e-4)


def test_statistics_of_merge_rules_do_not_read_padding():
    for measure in (merging.fisher_diagonal, merging.input_grams):
        few, many = (measure(attend, A, padded(to=to), task="tokens") for to in (6, 12))
        for p, q in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
            np.testing.assert_allclose(p, q, rtol=1e-4, atol=1e-7)
    with pytest.raises(MergeError, match="has no labels"):
        merging.fisher_diagonal(attend, A, padded(), task="regression")
