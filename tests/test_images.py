"""Image sets: every form gives the same images, and a hostile or broken file is refused in one line, unrun."""

from __future__ import annotations

import collections
import hashlib
import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
import torch
from PIL import Image

from replication.seeds import generator
from toy import archive, shapes
from toy import images as sets

SIZES = {"train": 6, "test": 4}


def pixels(split: str) -> np.ndarray:
    return np.random.default_rng(SIZES[split]).integers(0, 256, (SIZES[split], 32, 32, 3), dtype=np.uint8)


def labels(split: str) -> list[int]:
    return [(37 * i + 5) % 100 for i in range(SIZES[split])]


def planes(split: str) -> np.ndarray:
    """As CIFAR stores an image: 1,024 red bytes, row by row, then green, then blue."""
    return np.stack([np.concatenate([image[:, :, c].ravel() for c in range(3)]) for image in pixels(split)])


def python_2(split: str) -> bytes:
    """The pickle that Python 2 wrote, opcode by opcode: byte strings, and numpy's old module names."""
    data = planes(split)
    rows, width = data.shape

    def text(value: bytes) -> bytes:
        return pickle.BINSTRING + len(value).to_bytes(4, "little") + value

    def number(value: int) -> bytes:
        return pickle.BININT + value.to_bytes(4, "little", signed=True)

    kind = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR"
    array += b"(" + number(1) + b"(" + number(rows) + number(width) + b"t" + kind + b"I00\n" + text(data.tobytes())
    fine = b"](" + b"".join(number(label) for label in labels(split)) + b"e"
    names = b"](" + text(b"a_s_000001.png") + b"e"
    pairs = {b"data": array + b"tb", b"fine_labels": fine, b"filenames": names, b"batch_label": text(b"batch 1 of 1")}
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in pairs.items()) + b"u."


def packed(members: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch, md5: bool = True) -> Path:
    """An archive of these members, by default under the md5 that the reader expects."""
    path = folder / f"{archive.NAME}.tar.gz"
    with tarfile.open(path, "w:gz") as out:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    if md5:
        expect(monkeypatch, path, path.name)
    return path


def expect(monkeypatch: pytest.MonkeyPatch, path: Path, name: str) -> None:
    monkeypatch.setitem(archive.MD5, name, hashlib.md5(path.read_bytes()).hexdigest())


def official(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return packed({f"{archive.NAME}/{split}": python_2(split) for split in SIZES}, folder, monkeypatch)


def unpacked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    inner = folder / archive.NAME
    inner.mkdir()
    for split in SIZES:
        (inner / split).write_bytes(python_2(split))
        expect(monkeypatch, inner / split, split)
    return folder


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def hub_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "cifar100").mkdir()
    for split in SIZES:
        rows = [{"bytes": png(image), "path": f"{i}.png"} for i, image in enumerate(pixels(split))]
        table = pyarrow.table({"img": rows, "fine_label": labels(split), "coarse_label": [0] * SIZES[split]})
        parquet.write_table(table, folder / "cifar100" / f"{split}-00000-of-00001.parquet")
    return folder


def arrays() -> dict[str, np.ndarray]:
    y = {split: np.array(labels(split), np.uint8) for split in SIZES}
    return {"x_train": pixels("train"), "y_train": y["train"], "x_test": pixels("test"), "y_test": y["test"]}


def npz(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    np.savez(folder / "some.npz", **arrays())
    return folder


@pytest.mark.parametrize("form", (official, unpacked, hub_copy, npz))
def test_every_form_holds_the_same_images(
    form: Callable[[Path, pytest.MonkeyPatch], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sets.read(form(tmp_path, monkeypatch))
    assert np.array_equal(found.train, pixels("train")) and np.array_equal(found.test, pixels("test"))
    assert found.train_labels.tolist() == labels("train") and found.test_labels.tolist() == labels("test")
    direct = sets.Images("direct", *(np.asarray(part) for part in arrays().values()))
    assert found.fingerprint == direct.fingerprint
    assert found.corpus["name"].endswith("6 + 4 images")


def test_a_fingerprint_sees_one_pixel_one_label_and_the_split() -> None:
    whole = sets.Images("a", *arrays().values())
    pixel, label = arrays(), arrays()
    pixel["x_train"][5, 31, 31, 2] ^= 1
    label["y_test"][0] += 1
    moved = arrays()
    for kind in "xy":
        both = np.concatenate([moved[f"{kind}_train"], moved[f"{kind}_test"]])
        moved[f"{kind}_train"], moved[f"{kind}_test"] = both[:5], both[5:]
    found = {sets.Images("b", *each.values()).fingerprint for each in (pixel, label, moved)}
    assert len(found | {whole.fingerprint}) == 4


class Opens:
    """Unpickled by an ordinary reader it would make a file, `mark`."""

    def __init__(self, mark: Path, call: Any = os.mkdir) -> None:
        self.mark, self.call = mark, call

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return self.call, (str(self.mark),)


@pytest.mark.parametrize("protocol", (0, 2, 4, 5))
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "was-here"
    hostile = pickle.dumps(["data", Opens(mark)], protocol)
    pickle.loads(hostile)
    assert mark.exists(), "the pickle does nothing: the test would prove nothing"
    mark.rmdir()
    path = packed({f"{archive.NAME}/train": hostile, f"{archive.NAME}/test": python_2("test")}, tmp_path, monkeypatch)
    assert "mkdir, and only arrays and plain containers are read" in refused(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "value",
    [
        collections.OrderedDict(a=1),
        np.array(["an", "object"], dtype=object),
        np.arange(3.0),
        np.float64(1),
        Path("somewhere"),
        open,
        len,
    ],
)
def test_only_arrays_of_bytes_and_plain_containers_are_admitted(value: Any) -> None:
    for protocol in (2, 5):
        with pytest.raises(ValueError, match="'train' of cifar-100-python is not what it should be") as said:
            archive.unpickled(pickle.dumps({b"data": value, b"fine_labels": []}, protocol), "train")
        assert "\n" not in str(said.value)


def test_names_are_refused_before_they_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def loud(name: str, *_: Any) -> None:
        raise AssertionError(f"imported {name}")

    monkeypatch.setattr("builtins.__import__", loud)
    for text in (b"cos\nsystem\n.", b"\x80\x04\x8c\x07antigra\x8c\x01x\x93.", b"cnumpy\nmemmap\n.", b"cnumpy\nload\n."):
        with pytest.raises(ValueError):
            archive.unpickled(text, "train")


@pytest.mark.parametrize("state", (b"(I1\n(I2\nI2\nt", b"N", b"(I1\n(I99999999999999\ntNI00\nN"))
def test_a_false_description_of_an_array_is_refused(state: bytes) -> None:
    text = b"}(Vdata\ncnumpy.core.multiarray\n_reconstruct\n(tR" + state + b"tbVfine_labels\n]u."
    with pytest.raises(ValueError, match="not what it should be"):
        archive.unpickled(text, "train")


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as said:
        sets.read(path)
    assert "\n" not in str(said.value)
    return str(said.value)


def test_a_wrong_md5_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"{archive.NAME}/{split}": python_2(split) for split in SIZES}
    path = packed(members, tmp_path, monkeypatch, md5=False)
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("opened"))
    assert "is not the official cifar-100-python.tar.gz" in refused(path)
    assert "eb9058c3a382ffc7106e4002c42a8d85" in refused(path)


def test_an_unpacked_file_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpacked(tmp_path, monkeypatch)
    path = folder / archive.NAME / "test"
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    assert "is not the official test" in refused(folder)


@pytest.mark.parametrize("name", ("../escaped", f"{archive.NAME}/../../escaped", "/escaped"))
def test_a_way_out_of_the_folder_is_refused_and_writes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"{archive.NAME}/{split}": python_2(split) for split in SIZES}
    (tmp_path / "inner").mkdir()
    path = packed({**members, name: b"escaped"}, tmp_path / "inner", monkeypatch)
    assert "no plain file in its folder" in refused(path)
    assert sorted(each.name for each in tmp_path.rglob("*")) == [path.name, "inner"]


def test_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"{archive.NAME}.tar.gz"
    with tarfile.open(path, "w:gz") as out:
        link = tarfile.TarInfo(f"{archive.NAME}/train")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(link)
    expect(monkeypatch, path, path.name)
    assert "no plain file in its folder" in refused(path)


@pytest.mark.parametrize("share", (0.0, 0.3, 0.9, 0.999))
def test_a_file_that_was_cut_off_is_refused(share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = official(tmp_path, monkeypatch)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "is not the official" in refused(path)
    if share < 0.99:  # what is cut off there is padding
        expect(monkeypatch, path, path.name)  # and should its md5 be right
        assert path.name in refused(path)

    whole = npz(tmp_path, monkeypatch) / "some.npz"
    whole.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    assert "some.npz is no .npz of plain arrays" in refused(whole)


def test_a_missing_member_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed({f"{archive.NAME}/train": python_2("train")}, tmp_path, monkeypatch)
    assert "has no file cifar-100-python/test" in refused(path)
    monkeypatch.setattr(archive, "LARGEST", 100_000)
    assert "has no file cifar-100-python/train" in refused(
        packed({f"{archive.NAME}/train": bytes(200_000)}, tmp_path, monkeypatch)
    )


def test_an_npz_of_pickled_objects_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "was-here"
    hostile = np.empty(1, object)
    hostile[0] = Opens(mark)
    np.savez(tmp_path / "objects.npz", **{**arrays(), "x_test": hostile}, allow_pickle=True)
    assert "Object arrays cannot be loaded" in refused(tmp_path / "objects.npz")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(Opens(mark)))
    assert "pickled" in refused(tmp_path / "pickle.npz")
    assert not mark.exists()


def test_an_npz_that_promises_more_than_memory_holds_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "large.npz", **arrays())
    header = io.BytesIO()
    shape = (10**12, 32, 32, 3)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "large.npz", "w") as out:
        for key, values in arrays().items():
            with out.open(f"{key}.npy", "w") as file:
                np.lib.format.write_array(file, values) if key != "x_train" else file.write(header.getvalue())
    assert "large.npz is no .npz" in refused(tmp_path / "large.npz")


WRONG = {
    "float": ({"x_train": pixels("train") / 255}, "train images are float64"),
    "planes first": ({"x_train": pixels("train").transpose(0, 3, 1, 2)}, "train images are uint8 [6, 3, 32, 32]"),
    "none": ({"x_test": pixels("test")[:0]}, "test images are uint8 [0, 32, 32, 3]"),
    "too few labels": ({"y_train": np.zeros(5, np.uint8)}, "train labels are uint8 [5] for 6 images"),
    "no whole number": ({"y_test": np.zeros(4)}, "test labels are float64 [4]"),
    "class 100": ({"y_test": np.array([0, 1, 2, 100])}, "test labels go from 0 to 100, not 0 to 99"),
    "below zero": ({"y_test": np.array([0, 1, 2, -1])}, "test labels go from -1 to 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes_and_labels_are_refused(name: str, tmp_path: Path) -> None:
    changed, message = WRONG[name]
    np.savez(tmp_path / "some.npz", **{**arrays(), **changed})
    assert message in refused(tmp_path / "some.npz")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **{key: value for key, value in arrays().items() if key != "y_test"})
    assert "y_test" in refused(tmp_path / "some.npz")
    np.save(tmp_path / "one.npy", pixels("test"))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    assert "one.npz is no .npz" in refused(tmp_path / "one.npz")


def test_broken_parquet_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_copy(tmp_path, monkeypatch)
    path = next(tmp_path.rglob("test-*.parquet"))

    def written(**columns: Any) -> Path:
        parquet.write_table(pyarrow.table(columns), path)
        return tmp_path

    large = png(np.zeros((64, 64, 3), np.uint8))
    assert "64 x 64 pixels" in refused(written(img=[{"bytes": large}], fine_label=[1]))
    assert "cannot identify" in refused(written(img=[{"bytes": b"GIF89a"}], fine_label=[1]))
    assert "fine_label" in refused(written(img=[{"bytes": png(pixels("test")[0])}]))
    assert path.name in refused(written(img=[None], fine_label=[1]))
    whole = png(pixels("test")[0])
    for at in range(8, 33):  # in the header, which has a checksum
        broken = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        assert path.name in refused(written(img=[{"bytes": broken}], fine_label=[1])), at
    for end in range(8, len(whole) - 50, len(whole) // 20):
        assert path.name in refused(written(img=[{"bytes": whole[:end]}], fine_label=[1])), end
    path.write_bytes(b"PAR1")
    assert path.name in refused(tmp_path)
    path.unlink()
    assert "begins with 'test'" in refused(tmp_path)


def test_a_place_without_images_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "holds no image set that is known" in refused(tmp_path)
    monkeypatch.setenv("IMAGES", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="IMAGES is .*nowhere.*, and nothing is there"):
        sets.images()


def test_without_a_set_at_hand_our_own_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGES", raising=False)
    (tmp_path / "project").mkdir()
    monkeypatch.setattr(sets, "ROOT", tmp_path / "project")
    monkeypatch.setattr(sets, "PROCEDURAL_SIZES", {"train": 300, "test": 200})
    sets.opened.cache_clear()
    ours = sets.images()
    assert ours.corpus["name"] == "procedural shapes, not CIFAR-100, 300 + 200 images"
    assert np.bincount(ours.train_labels).tolist() == [3] * 100
    place = tmp_path / "shared" / "data" / "cifar100_subset"
    place.mkdir(parents=True)
    npz(place, monkeypatch)
    assert sets.images().name == "npz some"
    monkeypatch.setenv("IMAGES", "procedural")
    assert sets.images() is ours
    sets.opened.cache_clear()


def test_our_own_images_are_always_the_same_and_their_splits_differ() -> None:
    one, labels_one = shapes.split("train", 300)
    again, labels_again = shapes.split("train", 300)
    assert one.equal(again) and labels_one.equal(labels_again)
    assert not shapes.split("test", 300)[0].equal(one)


def test_the_grain_leans_as_its_class_says() -> None:
    """Gradients along x less those along y, over their sum, go with cos of twice the angle; noise has no direction."""
    leaning = []
    for grain in range(10):
        labels_N = torch.full((200,), 80 + grain)
        inner = shapes.picture(labels_N, generator(grain, "test")).double()[:, 11:21, 11:21] / 255
        down, across = inner.diff(dim=1).square().sum(), inner.diff(dim=2).square().sum()
        leaning.append(float((across - down) / (across + down)))
    wanted = np.cos(2 * np.radians(10 * np.arange(10)))
    assert leaning[0] > 0.2 and np.abs(leaning / np.float64(leaning[0]) - wanted).max() < 0.25, leaning
