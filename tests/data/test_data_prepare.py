"""Preparing, from archives on disk; what needs TensorFlow runs in processes of its own."""

import gzip
import hashlib
import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorflow_datasets.core.download import checksums

import llfc_jax
from llfc_jax import data
from llfc_jax.data.tfds.archives import Archive, collect, restore
from llfc_jax.data.tfds.prepare import main, prepare
from llfc_jax.errors import DataError

ROOT = Path(llfc_jax.__file__).parents[1]
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="needs the extra llfc-jax[prepare]"
)
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)


def archive(name, content):
    return Archive(f"https://example.org/{name}", name, len(content), sha256(content))


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def official_gzip(name, content, time=1504176606):
    file = io.BytesIO()
    with gzip.GzipFile(name.removesuffix(".gz"), "wb", fileobj=file, mtime=time) as stream:
        stream.write(content)
    return file.getvalue()


def stripped(official, name, time=0):
    """As `gzip -n` would have written it."""
    return (
        official[:3]
        + b"\0"
        + time.to_bytes(4, "little")
        + official[8:10]
        + official[10 + len(name.removesuffix(".gz")) + 1 :]
    )


@pytest.fixture
def folders(tmp_path):
    there, into = tmp_path / "there", tmp_path / "into"
    there.mkdir()
    into.mkdir()
    return there, into


def test_official_archives_are_linked(folders):
    there, into = folders
    (there / "a.tar.gz").write_bytes(b"official")
    (there / "by_hand.tar").write_bytes(b"not known to TFDS")
    collect(there, [archive("a.tar.gz", b"official")], into)
    assert (into / "a.tar.gz").read_bytes() == b"official"
    assert (into / "by_hand.tar").read_bytes() == b"not known to TFDS"


@pytest.mark.parametrize("time", [1504176606, 1504176627])
def test_a_stripped_gzip_header_is_restored(folders, time):
    there, into = folders
    name = "train-images.gz"
    official = official_gzip(name, b"pixels" * 99, time)
    (there / name).write_bytes(stripped(official, name, time=1591347949))
    assert gzip.decompress((there / name).read_bytes()) == b"pixels" * 99
    collect(there, [archive(name, official)], into)
    assert (into / name).read_bytes() == official
    assert (there / name).read_bytes() != official


def test_nothing_else_is_restored(folders):
    there, _ = folders
    name, other = "a.gz", official_gzip("a.gz", b"other pixels")
    official = official_gzip(name, b"pixels")
    for content in (
        stripped(other, name),
        stripped(official, name)[:-1] + b"?",
        official,
        b"",
        b"?" * (len(official) - 2),
    ):
        (there / name).write_bytes(content)
        assert restore(there / name, archive(name, official)) is None
    unknown_time = official_gzip(name, b"pixels", time=12345)
    (there / name).write_bytes(stripped(unknown_time, name))
    assert restore(there / name, archive(name, unknown_time)) is None


def test_missing_and_wrong_archives(folders):
    there, into = folders
    wanted = [archive("a.gz", b"a"), archive("b.gz", b"b"), archive("c.gz", b"c")]
    with pytest.raises(DataError, match=r"no folder of archives at .*nowhere"):
        collect(there / "nowhere", wanted, into)
    (there / "b.gz").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"missing in .*: a\.gz, c\.gz; .*https://example.org/c\.gz"
    ):
        collect(there, wanted, into)
    with pytest.raises(DataError, match=r"b\.gz is not the official file .* https://example.org/b"):
        collect(there, wanted[1:2], into)
    assert not list(into.iterdir())


@needs_debian
def test_debians_files_become_the_official_ones(tmp_path):
    """TFDS's own checksums say so; no TensorFlow involved."""
    known = checksums.get_all_url_infos().items()
    wanted = [
        Archive(url, info.filename, int(info.size), info.checksum)
        for url, info in known
        if url.startswith("http://fashion-mnist")
    ]
    assert len(wanted) == 4
    collect(DEBIAN, wanted, tmp_path)
    for one in wanted:
        assert sha256((tmp_path / one.name).read_bytes()) == one.sha256


def run(*arguments, before="", data_dir=None):
    """The command in a process of its own, after some code; TensorFlow stays in there."""
    command = "from llfc_jax.data.tfds.prepare import main; sys.exit(main(sys.argv[1:]))"
    code = f"import sys\n{before}\n{command}"
    where = [] if data_dir is None else ["--data-dir", str(data_dir)]
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments), *where],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def one_line(result):
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("llfc_jax.data.tfds.prepare: ")
    return result.stderr


def test_command_line_without_tensorflow():
    result = run("mnist", before="sys.modules['tensorflow'] = None")
    assert 'pip install "llfc-jax[prepare]"' in one_line(result)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: name"),
        (["mnist", "--archive-dir", "x"], "unrecognized arguments: --archive-dir x"),
        (["digits"], "data set 'digits' needs no preparing"),
        (["npz"], "data set 'npz' needs no preparing"),
    ],
)
def test_command_line_errors(capsys, arguments, words):
    try:
        status = main(arguments)
    except SystemExit as exit:
        status = exit.code
    errors = capsys.readouterr().err
    assert (status, errors.count("\n")) == (2, 1)
    assert words in errors


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["--help"])
    assert exit.value.code == 0
    assert "--archives DIR" in capsys.readouterr().out


@needs_tensorflow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mnsit"], "unknown data set 'mnsit'; did you mean 'mnist'?"),
        (["emnist/nonsense"], "TFDS has no 'emnist/nonsense'"),
        (["squad"], "'squad' is not for image classification"),
        (["mnist", "--archives", "/nowhere"], "no folder of archives at /nowhere"),
        (["cifar10", "--archives", "."], "missing in .: cifar-10-binary.tar.gz"),
        (["resisc45"], "'resisc45' must be downloaded by hand"),
        (["mnist", "--data-dir", "/proc/none"], "cannot write to /proc/none"),
    ],
)
def test_errors_before_tensorflow_is_loaded(arguments, words, tmp_path):
    if "--data-dir" not in arguments:
        arguments = [*arguments, "--data-dir", tmp_path]
    assert words in one_line(run(*arguments))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@needs_tensorflow
def test_no_network_is_said_at_once(tmp_path):
    before = (
        "import os, socket\n"
        "for name in list(os.environ):\n"
        "    if name.lower().endswith('_proxy'): del os.environ[name]\n"
        "def getaddrinfo(*_, **__): raise socket.gaierror(-2, 'Name or service not known')\n"
        "socket.getaddrinfo = getaddrinfo\n"
    )
    words = one_line(run("mnist", before=before, data_dir=tmp_path))
    assert "no network" in words
    assert "--archives DIR" in words
    assert "train-images-idx3-ubyte.gz" in words


@needs_tensorflow
def test_a_set_in_a_format_for_tensorflow_only(prepared_set, tmp_path):
    folder = prepared_set({"train": []}, name="cifar10", version="3.0.2", shape=(32, 32, 3))
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    assert "which only TensorFlow reads" in one_line(run("cifar10", data_dir=tmp_path))


@needs_tensorflow
@needs_debian
def test_real_fashion_mnist_from_debians_files(tmp_path):
    result = run("fashion_mnist", "--archives", DEBIAN, data_dir=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(f"is prepared in {tmp_path / 'fashion_mnist' / '3.0.1'}\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fashion_mnist"]
    assert one_again(tmp_path) == 0

    read = data.load("fashion_mnist", data_dir=tmp_path)
    assert read.classes == 10
    for split, stem in ((read.train, "train"), (read.test, "t10k")):
        images, labels = (
            np.frombuffer(gzip.decompress((DEBIAN / f"{stem}-{kind}.gz").read_bytes()), np.uint8)
            for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
        )
        theirs = zip(images[16:].reshape(-1, 28 * 28), labels[8:], strict=True)
        ours = zip(split.images.reshape(-1, 28 * 28), split.labels, strict=True)
        key = lambda pair: (pair[0].tobytes(), int(pair[1]))  # noqa: E731
        assert sorted(map(key, ours)) == sorted(map(key, theirs))


def one_again(data_dir):
    """Exit status of preparing a second time, for which the archives are not needed."""
    return run("fashion_mnist", data_dir=data_dir).returncode


def test_prepare_refuses_what_needs_none():
    with pytest.raises(DataError, match="needs no preparing"):
        prepare("digits")
