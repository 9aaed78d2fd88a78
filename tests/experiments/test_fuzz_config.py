"""Random edits of a config: a plan, or one line of a typed error; never a traceback or a hang."""

from copy import deepcopy

from fuzz import examples
from hypothesis import given
from hypothesis import strategies as st

from llfc_jax.errors import LlfcError
from llfc_jax.experiments import dry_run, sweep
from llfc_jax.experiments.config import base, check
from llfc_jax.matching import METHODS
from llfc_jax.measures import MEASURES

NAMES = ("", "none", "adam", "sgd", "step", "cosine", "reset", "repair", "map", "digits", "npz",
         "mlp", "lenet5", "<script>", "../x", "a\nb", *MEASURES, *METHODS)  # fmt: skip
WHOLE = st.sampled_from((-1, 0, 1, 2, 3, 5, 20, 40, 100, 101, 2**31, 10**12)) | st.integers()
NUMBERS = WHOLE | st.floats() | st.sampled_from((0.0, 0.1, 0.5, 1.0, 1e-30, 1e30))
WORDS = st.sampled_from(NAMES) | st.text(max_size=4)
PAIRS = st.sampled_from(("spawn_k0", "spawn_k1", "spawn_k2", "spawn_k3", "independent", "spawn_k"))
ANY = st.none() | st.booleans() | NUMBERS | WORDS | st.binary(max_size=2)
ANY = ANY | st.lists(ANY | PAIRS, max_size=3).map(tuple) | st.dictionaries(WORDS, ANY, max_size=2)
ADDED = (("network", "widths"), ("network", "norm"), ("train", "augment", "crop"),
         ("train", "augment", "flip"), ("match", "weight"), ("match", "weight", "restarts"),
         ("sweep", "seed"), ("sweep", "train", "epochs"), ("sead",), ("data", "siz"))  # fmt: skip


def start():
    config = base()
    config.data.update(train_size=100, test_size=40)
    config.network = {"name": "mlp", "widths": (8,)}
    config.train.update(epochs=2, batch_size=20, schedule="constant")
    return config.to_dict()


def paths(fields, before=()):
    for name, value in fields.items():
        yield (*before, name)
        if isinstance(value, dict):
            yield from paths(value, (*before, name))


def like(value):
    """Values of the kind that stands there now, mostly."""
    if isinstance(value, tuple):
        return st.lists(WHOLE | NUMBERS | WORDS | PAIRS, max_size=3).map(tuple) | ANY
    if isinstance(value, str):
        return WORDS | ANY
    return WHOLE | NUMBERS | ANY if isinstance(value, (int, float)) else ANY


@examples(150)
@given(st.data())
def test_any_edit_of_a_config_is_planned_or_refused_with_one_line(data):
    fields = start()
    for _ in range(data.draw(st.integers(1, 3), "edits")):
        path = data.draw(st.sampled_from((*paths(fields), *ADDED)), "field")
        group = fields
        for name in path[:-1]:
            if not isinstance(group.get(name), dict):
                group[name] = {}
            group = group[name]
        group[path[-1]] = data.draw(like(group.get(path[-1])), "value")
    said = ""
    try:
        config = check(deepcopy(fields))
        runs = sweep.expand(config) if config.sweep else []
        assert dry_run.plan(runs[0].config if runs else config)["network"]
    except LlfcError as error:
        said = str(error)
    assert "\n" not in said
