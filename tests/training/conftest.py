"""What `tiny` holds, as fixtures."""

import pytest
from tiny import CLASSES, RECIPE, Small, make_dataset

from llfc_jax.networks import build


@pytest.fixture(scope="session")
def dataset():
    return make_dataset()


@pytest.fixture(scope="session")
def mlp():
    return build("mlp", CLASSES, widths=(8,))


@pytest.fixture(scope="session")
def small():
    return Small(CLASSES)


@pytest.fixture(scope="session")
def recipe():
    return RECIPE
