"""Networks and data as strangers write them: the study runs, or says in one right line why not."""

import collections
import functools
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import optimize

import llfc_jax
from llfc_jax import landscape, matching, measures, merging, tasks
from llfc_jax.data.inputs import as_batches
from llfc_jax.errors import LlfcError

RNG = np.random.default_rng(3)
X = RNG.normal(size=(20, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 20)
OPTIONS = {"measures": ("lmc", "llfc"), "alphas": (0.0, 0.5, 1.0), "batch_size": 8}


def weights(seed):
    rng = np.random.default_rng(seed)
    return {"w": rng.normal(size=(6, 8)).astype(np.float32), "v": rng.normal(size=(8, 3)) / 2}


def plain(w, x):
    return jax.nn.relu(x @ w["w"]) @ w["v"]


def study(network, a, b, data, **options):
    result = llfc_jax.study(network, a, b, data, **{**OPTIONS, **options})
    assert np.isfinite(result.summary[0]["midpoint_barrier"])
    return result


@functools.cache
def expected():
    """Rows of LMC of the plain network on plain arrays."""
    return study(plain, weights(0), weights(1), (X, Y)).rows["lmc"]


def same(result):
    for row, other in zip(result.rows["lmc"], expected(), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert row["error"] == other["error"]


class Tensor:
    """An array of another library, which NumPy can read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, str(array.dtype)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


class Loader:
    """What a PyTorch DataLoader or a tf.data.Dataset looks like: no length, batches anew."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        raise TypeError("the data set is of unknown length")

    def __iter__(self):
        for i in range(0, 20, 8):
            yield self.make(X[i : i + 8], Y[i : i + 8])


class HuggingFace:
    """What a Hugging Face data set looks like: rows one by one, or columns of lists by `iter`."""

    column_names = ("pixels", "label")

    def __iter__(self):
        return ({"pixels": x.tolist(), "label": int(y)} for x, y in zip(X, Y, strict=True))

    def iter(self, batch_size):
        for i in range(0, 20, batch_size):
            some = slice(i, i + batch_size)
            yield {"pixels": X[some].tolist(), "label": Y[some].tolist()}


def by_name(w, batch):
    return plain(w, batch["pixels"])


def both(w, x):
    return plain(w, x[0] + x[1])


DATA = {
    "list of pairs": (plain, [(X[:8], Y[:8]), (X[8:16], Y[8:16]), (X[16:], Y[16:])]),
    "pairs as lists": (plain, Loader(lambda x, y: [Tensor(x), Tensor(y)])),
    "dictionaries": (by_name, Loader(lambda x, y: {"pixels": Tensor(x), "labels": Tensor(y)})),
    "user dictionary": (
        by_name, Loader(lambda x, y: collections.UserDict({"pixels": x, "target": y}))
    ),
    "hugging face": (by_name, HuggingFace()),
    "a tuple as x": (both, ((X / 4, 3 * X / 4), Y)),
    "a mapping of arrays": (by_name, {"pixels": X, "y": Y}),
    "a stream": (plain, lambda: ((X[i : i + 8], Y[i : i + 8]) for i in (0, 8, 16))),
    "a mask": (plain, (np.concatenate([X, X]), np.concatenate([Y, Y]), np.arange(40) < 20)),
}  # fmt: skip


@pytest.mark.parametrize("form", DATA)
def test_data_of_any_form(form):
    network, data = DATA[form]
    same(study(network, weights(0), weights(1), data))


@pytest.mark.parametrize("form", DATA)
def test_measures_matching_and_merging_read_the_same_forms(form):
    network, data = DATA[form]
    modes = weights(0), weights(1)
    found = measures.lmc(network, *modes, data, alphas=(0.0, 0.5, 1.0), batch_size=8)
    np.testing.assert_allclose(found.loss, [row["loss"] for row in expected()], rtol=1e-5)
    match = matching.align("activation", jax.random.key(0), network, *modes, data)
    assert float(match.objective) == pytest.approx(matched(), rel=1e-4)
    diagnosed = merging.diagnose(network, modes, data)
    assert diagnosed.loss.item() == pytest.approx(found.loss[1], rel=1e-5)


@functools.cache
def matched():
    """The objective of activation matching of the plain network on plain arrays."""
    x = X.astype(float)
    p, q = (np.maximum(x @ weights(seed)["w"], 0) for seed in (0, 1))
    scores = np.corrcoef(p, q, rowvar=False)[:8, 8:]
    return scores[optimize.linear_sum_assignment(scores, maximize=True)].sum()


def test_data_of_a_torch_loader():
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    same(study(plain, weights(0), weights(1), torch.utils.data.DataLoader(dataset, 8)))


def test_data_of_grain():
    import grain

    data = grain.MapDataset.source(list(zip(X, Y, strict=True))).batch(8)
    same(study(plain, weights(0), weights(1), data))
    same(study(plain, weights(0), weights(1), data.to_iter_dataset()))


class Counting(eqx.Module):
    """An Equinox network with state: it counts its calls, and drops out in training."""

    first: eqx.nn.Linear
    last: eqx.nn.Linear
    drop: eqx.nn.Dropout
    calls: eqx.nn.StateIndex

    def __init__(self, key):
        keys = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(6, 8, key=keys[0]), eqx.nn.Linear(8, 3, key=keys[1])
        self.drop = eqx.nn.Dropout(0.5)
        self.calls = eqx.nn.StateIndex(jnp.zeros(()))

    def __call__(self, x, state, key=None):
        state = state.set(self.calls, state.get(self.calls) + 1)
        return self.last(self.drop(jax.nn.relu(self.first(x)), key=key)), state


class Dropping(nnx.Module):
    """An NNX network with dropout."""

    def __init__(self, seed):
        rngs = nnx.Rngs(seed)
        self.first, self.last = nnx.Linear(6, 8, rngs=rngs), nnx.Linear(8, 3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.first(x))))


@pytest.mark.slow
def test_networks_with_state_and_dropout_are_evaluated_as_they_are_used():
    a, b = (eqx.nn.make_with_state(Counting)(jax.random.key(seed)) for seed in (0, 1))
    rows = [study(a, a, b, (X, Y)).rows["lmc"] for _ in range(2)]
    assert rows[0] == rows[1]
    networks = [Dropping(seed) for seed in (0, 1)]
    rows = [study(networks[0], *networks, (X, Y)).rows["lmc"] for _ in range(2)]
    assert rows[0] == rows[1]


def test_two_outputs_with_an_auxiliary_loss():
    def two(w, x):
        return {"logits": plain(w, x), "aux": (x @ w["w"])[:, 0]}

    def loss(outputs, targets, mask):
        logs = jax.nn.log_softmax(outputs["logits"])
        main = -jnp.take_along_axis(logs, targets["label"][:, None], 1)[:, 0]
        return main + (outputs["aux"] - targets["size"]) ** 2 / 10

    data = (X, {"label": Y, "size": X[:, 0]})
    result = study(two, weights(0), weights(1), data, task=tasks.Task(loss=loss),
                   measures=("lmc", "llfc", "ensemble", "layerwise"))  # fmt: skip
    summary = result.summary[0]
    assert summary["loss_a"] > 0
    assert "error_a" not in summary
    assert "at α = ½ the loss is" in str(result)


def test_complex_outputs_have_a_task_of_ones_own():
    task = tasks.Task(loss=lambda o, t, m: jnp.abs(o[:, 0]) ** 2)
    result = study(complex_, weights(0), weights(1), (X, Y), task=task)
    assert {row["layer"] for row in result.rows["llfc"]} == {"w", "w.relu", "v"}


def complex_(w, x):
    return plain(w, x) * (1 + 1j)


def ragged():
    return [(X[:8], Y[:8]), (np.zeros((8, 7), np.float32), Y[8:16])]


LINES = {
    "one-hot labels": (plain, (X, np.eye(3)[Y]), {}, "pass labels.argmax(-1)"),
    "an ignored label": (plain, (X, np.where(Y == 1, -100, Y)), {}, "'ignore': -100}"),
    "a generator": (plain, iter([(X, Y)]), {}, "data=lambda: ..."),
    "no labels": (by_name, {"pixels": X}, {}, "an entry 'labels'"),
    "words": (plain, [(["a", "b"], [0, 1])], {}, "make them numbers"),
    "complex outputs": (complex_, (X, Y), {}, "real logits, not complex64"),
    "two outputs": (lambda w, x: (plain(w, x), x), (X, Y), {}, "returns 2 arrays"),
    "token logits": (lambda w, x: plain(w, x)[:, None], (X, Y), {}, "task='tokens'"),
    "batches of two shapes": (plain, ragged(), {}, "pad them, and pass a mask"),
    "a loss that fails": (
        plain, (X, Y), {"task": tasks.Task(loss=lambda o, t, m: o["a"])}, "does not fit outputs"
    ),
    "a loss of another size": (
        plain, (X, Y), {"task": tasks.Task(loss=lambda o, t, m: o.mean(0))}, "one number for each"
    ),
    "numbers of another shape": (plain, (X, X[:, :2]), {"task": "regression"}, "of one shape"),
    "rows per token of images": (plain, (X, Y), {"per": "token"}, "mask [n, t]"),
    "a task that there is not": (plain, (X, Y), {"task": "toekns"}, "did you mean 'tokens'"),
}  # fmt: skip


@pytest.mark.parametrize("form", LINES)
def test_what_does_not_fit_is_one_line(form):
    network, data, options, words = LINES[form]
    with pytest.raises(LlfcError) as caught:
        llfc_jax.study(network, weights(0), weights(1), data, **{**OPTIONS, **options})
    assert "\n" not in str(caught.value)
    assert words in str(caught.value)


def test_batches_of_a_stream_can_be_counted_where_it_says_how_many():
    assert len(as_batches([(X, Y)] * 3, 8)) == 3
    assert tasks.count_batches(as_batches(Loader(lambda x, y: (x, y)), 8)) == 0


NOT_A_NUMBER = np.where(np.arange(6) == 2, np.nan, X).astype(np.float32)
ELSEWHERE = {
    "ste of one-hot labels": ("ste", plain, (X, np.eye(3)[Y]), "pass labels.argmax(-1)"),
    "ste of an ignored label": ("ste", plain, (X, np.where(Y == 1, -100, Y)), "'ignore': -100}"),
    "ste of complex outputs": ("ste", complex_, (X, Y), "real logits, not complex64"),
    "output of complex outputs": ("output", complex_, (X, Y), "outputs are complex64"),
    "activation of NaN": ("activation", plain, (NOT_A_NUMBER, Y), "hold NaN or infinity"),
    "activation of a generator": ("activation", plain, iter([(X, Y)]), "data=lambda: ..."),
    "fisher of numbers": ("fisher", plain, (X, Y.astype(float)), "must be integers"),
    "fisher of NaN": ("fisher", plain, (NOT_A_NUMBER, Y), "hold NaN or infinity"),
    "lmc of padding alone": ("lmc", plain, (X, Y, np.zeros(20)), "nothing of the data counts"),
    "a curve of no data": ("curve", plain, [], "no batch to fit"),
    "a curve of padding alone": ("curve", plain, (X, Y, np.zeros(20)), "nothing of the data"),
}


@pytest.mark.parametrize("form", ELSEWHERE)
def test_what_does_not_fit_is_one_line_of_matching_merging_and_curves_too(form):
    what, network, data, words = ELSEWHERE[form]
    modes = weights(0), weights(1)
    calls = {
        "fisher": lambda: merging.fisher_diagonal(network, modes[0], data),
        "lmc": lambda: measures.lmc(network, *modes, data),
        "curve": lambda: landscape.fit_curve(network, *modes, data),
    }
    align = partial(matching.align, what, jax.random.key(0), network, *modes, data)
    with pytest.raises(LlfcError) as caught:
        calls.get(what, align)()
    assert "\n" not in str(caught.value)
    assert words in str(caught.value)
