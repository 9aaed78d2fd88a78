"""Optimisers against their equations in float64, schedules by value, bad values in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llfc_jax.errors import ConfigError
from llfc_jax.training import Recipe

W0 = {"kernel": np.array([[1.0, -2.0]]), "bias": np.array([0.5, 3.0])}


def gradient(w, t):
    """Some gradient, a function of weights and step."""
    return {name: 0.3 * value + np.sin(t + value) for name, value in w.items()}


def by_recipe(recipe, steps=6, steps_per_epoch=2):
    """Weights after some steps with the recipe's optimiser."""
    transformation = recipe.transformation(steps_per_epoch)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), W0)
    state = transformation.init(params)
    for t in range(steps):
        grads = jax.tree.map(jnp.asarray, gradient(params, t))
        updates, state = transformation.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def sgd(w, t, memory, rate, momentum=0.9, decay=0.0, nesterov=False, kernels=False):
    for name, g in gradient(w, t).items():
        g = g + (0 if kernels and name == "bias" else decay) * w[name]
        m = memory[name] = momentum * memory.get(name, 0) + g
        w[name] = w[name] - rate * (g + momentum * m if nesterov else m)


def adam(w, t, memory, rate, decay=0.0, decoupled=False):
    for name, g in gradient(w, t).items():
        g = g if decoupled else g + decay * w[name]
        first, second = memory.get(name, (0, 0))
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        memory[name] = first, second
        step = first / (1 - 0.9 ** (t + 1)) / (np.sqrt(second / (1 - 0.999 ** (t + 1))) + 1e-8)
        w[name] = w[name] - rate * (step + (decay * w[name] if decoupled else 0))


def by_hand(update, **options):
    w, memory = {name: value.copy() for name, value in W0.items()}, {}
    for t in range(6):
        update(w, t, memory, **options)
    return w


@pytest.mark.parametrize(
    ("values", "update", "options"),
    [
        ({"momentum": 0.0}, sgd, {"momentum": 0.0}),
        ({}, sgd, {}),
        ({"nesterov": True, "weight_decay": 0.1}, sgd, {"nesterov": True, "decay": 0.1}),
        ({"weight_decay": 0.1}, sgd, {"decay": 0.1}),
        ({"weight_decay": 0.1, "decay": "kernels"}, sgd, {"decay": 0.1, "kernels": True}),
        ({"optimizer": "adam"}, adam, {}),
        ({"optimizer": "adam", "weight_decay": 0.1}, adam, {"decay": 0.1}),
        ({"optimizer": "adamw", "weight_decay": 0.1}, adam, {"decay": 0.1, "decoupled": True}),
    ],
)
def test_optimisers_follow_their_equations(values, update, options):
    defaults = {"learning_rate": 0.05, "weight_decay": 0.0, "schedule": "constant"}
    ours = by_recipe(Recipe(**defaults | values))
    theirs = by_hand(update, rate=0.05, **options)
    for name in W0:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5)


def test_clipping_comes_before_the_decay():
    recipe = Recipe(learning_rate=1.0, momentum=0.0, weight_decay=0.5, clip_norm=1.0)
    transformation = recipe.transformation(1)
    params = {"kernel": jnp.array([2.0, 0.0])}
    updates, _ = transformation.update(
        {"kernel": jnp.array([30.0, 40.0])}, transformation.init(params), params
    )
    np.testing.assert_allclose(updates["kernel"], [-(0.6 + 1.0), -0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "rates"),
    [
        ({"schedule": "constant"}, {0: 1, 99: 1}),
        ({"schedule": "cosine"}, {0: 1, 50: 0.5, 100: 0}),
        (
            {"schedule": "warmup_cosine", "warmup_epochs": 2},
            {0: 0, 10: 0.5, 20: 1, 60: 0.5, 100: 0},
        ),
        ({"schedule": "warmup_cosine", "warmup_epochs": 0.5}, {0: 0, 1: 0.2, 5: 1, 100: 0}),
        (
            {"schedule": "step", "boundaries": [5, 8], "factor": 0.1},
            {0: 1, 49: 1, 50: 0.1, 79: 0.1, 80: 0.01, 99: 0.01},
        ),
    ],
)
def test_schedules(values, rates):
    schedule = Recipe(epochs=10, learning_rate=1.0, **values).learning_rates(steps_per_epoch=10)
    for step, rate in rates.items():
        np.testing.assert_allclose(schedule(step), rate, atol=1e-6)


def test_defaults_are_the_papers_recipe_and_recipes_compare_by_value():
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer) == (160, 128, "sgd")
    np.testing.assert_allclose(recipe.learning_rates(10)(1250), 0.001, rtol=1e-5)
    one, other = (
        Recipe(augment=a) for a in ({"flip": 0.5, "crop": 4}, [["crop", 4], ("flip", 0.5)])
    )
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"optimizer": "sdg"}, "did you mean 'sgd'"),
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"epochs": 0}, "train.epochs must be finite and above 0"),
        ({"epochs": 1.5}, "train.epochs must be int, not 1.5"),
        ({"epochs": True}, "train.epochs must be int"),
        ({"batch_size": -1}, "train.batch_size"),
        ({"learning_rate": float("nan")}, "train.learning_rate must be finite"),
        ({"learning_rate": "0.1"}, "train.learning_rate must be float"),
        ({"momentum": 1.0}, "train.momentum must be below 1"),
        ({"weight_decay": -1e-4}, "train.weight_decay"),
        ({"label_smoothing": 1}, "train.label_smoothing must be below 1"),
        ({"decay": "some"}, "train.decay must be one of 'all', 'kernels'"),
        ({"warmup_epochs": 200}, "train.warmup_epochs must be at most the 160 epochs"),
        ({"boundaries": (120, 80)}, "train.boundaries must be rising"),
        ({"boundaries": (0, 80)}, "train.boundaries must be rising"),
        ({"compute_dtype": "float16"}, "train.compute_dtype must be one of"),
        ({"augment": {"flipp": 0.5}}, "did you mean 'flip'"),
        ({"augment": {"flip": 2}}, "strength must be a number from 0.0 to 1.0"),
        ({"augment": {"crop": 1.5}}, "strength must be a whole number"),
        ({"augment": {"rotate": "10"}}, "strength must be a number"),
        ({"augment": {"resized_crop": float("nan")}}, "strength must be a number"),
        ({"augment": "flip"}, "train.augment must map names to strengths"),
        ({"augment": 3}, "train.augment must map names to strengths"),
    ],
)
def test_bad_values_give_one_line(values, words):
    with pytest.raises(ConfigError) as caught:
        Recipe(**values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
