"""Small prepared sets of TFDS, written without TensorFlow, in the formats that TFDS reads."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from toysets import Example, png


@pytest.fixture
def prepared_set(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a prepared set and returns its folder; the data_dir is tmp_path."""

    def write(
        splits: Mapping[str, Sequence[Example | dict[str, Any]]],
        *,
        name: str = "toy",
        version: str = "1.0.0",
        features: Mapping[str, Any] | None = None,
        shape: tuple[int | None, ...] = (5, 4, 3),
    ) -> Path:
        folder = tmp_path / name / version
        folder.mkdir(parents=True)
        spec = tfds.features.FeaturesDict(
            features
            or {
                "image": tfds.features.Image(shape=shape),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
        )
        infos = []
        for split, examples in splits.items():
            path = folder / f"{name}-{split}.array_record-00000-of-00001"
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for example in examples:
                if isinstance(example, dict):
                    record = example
                else:
                    image, label = example
                    encoded = image if isinstance(image, bytes) else png(image)
                    record = {"image": encoded, "label": label}
                    record = record if features is None else {"x": label}
                writer.write(spec.serialize_example(record))
            writer.close()
            size = path.stat().st_size
            infos.append(
                tfds.core.SplitInfo(name=split, shard_lengths=[len(examples)], num_bytes=size)
            )
        tfds.folder_dataset.write_metadata(
            data_dir=folder, features=spec, split_infos=infos, check_data=False
        )
        return folder

    return write
