"""A finished run, shown again from its files: nothing is loaded, trained, traced or drawn."""

import json

from llfc_jax.errors import WorkdirError
from llfc_jax.experiments.config import Config
from llfc_jax.experiments.evaluate import list_measured
from llfc_jax.experiments.pair_data import list_splits
from llfc_jax.experiments.study_result import Study
from llfc_jax.experiments.workdir import Workdir
from llfc_jax.io import to_json
from llfc_jax.parallel import multihost
from llfc_jax.report import stored


def read_finished(config: Config, workdir: Workdir) -> Study | None:
    """Returns the study of a run that wrote all that this config asks for, or None.

    None also where a file is damaged, which the run then writes again or reports, and where a pair
    diverged: what is to be said then needs the training's history.
    """
    pairs = {name: list_splits(config, name) for name in config.pair_names}
    names = list(list_measured(pairs, config.settings))
    tables = [f"{name}.{ending}" for name in config.measures for ending in ("csv", "json")]
    files = [workdir.path / file for file in ("summary.json", stored.WORDS, stored.PAGE, *tables)]
    if not multihost.broadcast(lambda: all(file.is_file() for file in files)):
        return None
    try:
        study = Study.read(workdir.path, config.measures)
        for name in filter(workdir.has, names):
            workdir.load(name)
    except WorkdirError:
        return None
    if study.details.get("config") != json.loads(to_json(config.to_dict())):
        return None
    if any(row["diverged"] for row in study.summary) or not all(map(workdir.has, names)):
        return None
    return study
