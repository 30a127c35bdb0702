"""A class at each pixel: class tables, label pictures of every kind, folders of pairs, packed maps."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from poise.data import (
    CITYSCAPES,
    VOID,
    ClassTable,
    EncodedLabelMaps,
    EncodedPictures,
    Samples,
    SampleSplits,
    cityscapes,
    packed_pictures,
    read_class_table,
    read_samples,
    segmentation_folders,
)
from poise.data.encoded_pictures import SeparateFiles

NAMES = ("sky", "road", "Void", "car")  # values 0, 1, 3 are classes 0, 1, 2
CLASSES = np.array([0, 1, VOID, 2], np.uint8)
COLOURS = np.array([[9, 0, 0], [0, 200, 7], [0, 0, 0], [255, 255, 255]], np.uint8)


def values(shape=(5, 7), seed=0):
    return np.random.default_rng(seed).integers(0, 4, shape, dtype=np.uint8)


def write_table(folder, colours=True):
    rows = "\n".join(f"{r} {g} {b}\t{name}" for (r, g, b), name in zip(COLOURS.tolist(), NAMES, strict=True))
    (folder / ("label_colors.txt" if colours else "classes.txt")).write_text(rows if colours else "\n".join(NAMES))


def palette(array):
    image = Image.frombytes("P", array.shape[::-1], array.tobytes())
    image.putpalette(COLOURS.flatten().tolist())
    return image


def with_one_unknown(path):
    array = values()
    array[2, 3] = 77
    Image.fromarray(array).save(path)


KINDS = {
    "grey": lambda array: Image.fromarray(array),
    "grey of 16 bits": lambda array: Image.fromarray(array.astype(np.uint16)),
    "grey with transparency": lambda array: Image.fromarray(np.stack([array, 255 - array], axis=2)),
    "palette": palette,
    "rgb": lambda array: Image.fromarray(COLOURS[array]),
    "rgba": lambda array: Image.fromarray(np.concatenate([COLOURS[array], array[..., None]], axis=2)),
}


def write_camvid(folder, kind="grey", shape=(5, 7), parts=("train", "val", "test"), number=3, suffix=""):
    write_table(folder, colours=kind in ("rgb", "rgba"))
    held = {}
    for part in parts:
        for own in (part, part + "annot"):
            (folder / own).mkdir()
        for place in range(number):
            picture = np.random.default_rng(place).integers(0, 256, (*shape, 3), dtype=np.uint8)
            held[part, place] = picture, values(shape, place)
            Image.fromarray(picture).save(folder / part / f"{place:02}.png")
            KINDS[kind](held[part, place][1]).save(folder / (part + "annot") / f"{place:02}{suffix}.png")
    return held


@pytest.mark.parametrize("kind", KINDS)
def test_label_pictures_of_every_kind_are_the_same_maps(tmp_path, kind):
    held = write_camvid(tmp_path, kind)
    found = read_samples(str(tmp_path))
    assert found.train.class_names == ("sky", "road", "car") and len(found.valid) == len(found.test) == 3
    assert isinstance(found.train.inputs, EncodedPictures) and isinstance(found.train.labels, EncodedLabelMaps)
    batch = found.train.restrict(torch.tensor([2, 0, 1])).select(torch.tensor([1, 2]))
    assert batch.labels.dtype == torch.int64 and batch.per_pixel
    for row, place in enumerate((0, 1)):
        picture, labels = held["train", place]
        assert np.array_equal(batch.labels[row].numpy(), CLASSES[labels])
        assert np.array_equal(batch.inputs[row].permute(1, 2, 0).numpy(), picture)


def test_a_palette_is_read_by_its_colours_where_the_table_has_colours(tmp_path):
    held = write_camvid(tmp_path, "palette", suffix="_L")
    (tmp_path / "classes.txt").unlink()
    write_table(tmp_path, colours=True)
    found = segmentation_folders(tmp_path)
    assert np.array_equal(found.test.select(slice(1)).labels[0].numpy(), CLASSES[held["test", 0][1]])


def test_pictures_and_labels_are_cut_and_resampled_alike(tmp_path):
    # Blocks of 4 x 4 of two classes, the one black and the other white: most of a small pixel is of its own block.
    blocks = values((6, 10)) // 2 * 3
    labels = blocks.repeat(4, 0).repeat(4, 1)
    write_camvid(tmp_path, parts=("train", "test"), number=1, shape=labels.shape)
    Image.fromarray(labels * 85).save(tmp_path / "train" / "00.png")
    Image.fromarray(labels).save(tmp_path / "trainannot" / "00.png")
    batch = read_samples(str(tmp_path), size=(6, 6)).train.select(slice(None))
    middle = blocks[:, 2:8]
    assert np.array_equal(batch.labels[0].numpy(), CLASSES[middle])
    assert np.array_equal(batch.inputs[0].numpy() > 127, np.stack([middle == 3] * 3))


def spoil_label(name, write):
    def spoil(folder):
        write(folder / "trainannot" / name)

    return spoil


def write(folder, text):
    (folder / "label_colors.txt").write_text(text)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("kind", "spoil", "parts"),
    [
        ("grey", spoil_label("01.png", lambda path: path.unlink()), ("01.png", "has no label", "trainannot")),
        (
            "grey",
            spoil_label("01.png", lambda path: Image.fromarray(values((5, 6))).save(path)),
            ("01.png", "is 5x6", "its picture 5x7"),
        ),
        (
            "grey",
            spoil_label("02.png", with_one_unknown),
            ("02.png", "the value 77 at (2, 3)", "class table"),
        ),
        (
            "rgb",
            spoil_label("02.png", lambda path: Image.new("RGB", (7, 5), (1, 2, 3)).save(path)),
            ("02.png", "the colour (1, 2, 3) at (0, 0)"),
        ),
        ("grey", spoil_label("02.png", lambda path: palette(values()).convert("RGB").save(path)), ("kind RGB",)),
        ("grey", spoil_label("01.png", truncated), ("01.png", "cannot be decoded")),
        ("grey", lambda folder: truncated(folder / "train" / "01.png"), ("01.png", "cannot be decoded")),
        ("grey", spoil_label("01.png", lambda path: path.write_bytes(b"no picture")), ("01.png", "cannot be decoded")),
        ("grey", lambda folder: [path.unlink() for path in (folder / "test").iterdir()], ("test", "holds no picture")),
        ("grey", lambda folder: (folder / "classes.txt").unlink(), ("no class table", "classes.txt")),
        ("grey", lambda folder: write_table(folder, colours=True), ("classes.txt and label_colors.txt",)),
        ("grey", lambda folder: (folder / "classes.txt").write_text("a\n\nb\n"), ("classes.txt", "class 2", "no name")),
        (
            "rgb",
            lambda folder: (folder / "label_colors.txt").write_text("1 2 x sky"),
            ("label_colors.txt", "line 1", "names no colour"),
        ),
        ("grey", lambda folder: (folder / "classes.txt").write_text("\n"), ("classes.txt", "names 0 classes")),
        (
            "rgb",
            lambda folder: (folder / "label_colors.txt").write_text("1 2 3"),
            ("label_colors.txt", "class 1", "no name"),
        ),
    ],
)
def test_folders_of_pairs_that_do_not_fit_are_refused(tmp_path, refuses, kind, spoil, parts):
    write_camvid(tmp_path, kind)
    spoil(tmp_path)
    with refuses(*parts):
        found = read_samples(str(tmp_path))
        assert len(found.train.select(slice(1))) == 1  # what is before the damage can be had
        found.train.select(slice(None))


def test_a_table_is_read_from_any_of_its_files(tmp_path, refuses):
    (tmp_path / "class_dict.csv").write_text(
        'name,r,g,b\nSky,1,2,3\n"Tree, low",4,5,6\nVoid,0,0,0\nsky,7,7,7\nSky,8,8,8\n'
    )
    table = read_class_table(tmp_path)
    assert table.class_names == ("Sky", "Tree, low", "sky")
    colours = np.array([[8, 8, 8], [0, 0, 0], [4, 5, 6], [1, 2, 3], [7, 7, 7]], np.uint8)
    assert table.of_colours(colours, "it").tolist() == [0, VOID, 1, 0, 2]
    with refuses("it has the colour (4, 5, 7) at (1)"):
        table.of_colours(np.array([[1, 2, 3], [4, 5, 7]], np.uint8), "it")


@given(
    known=st.dictionaries(st.integers(0, 255), st.sampled_from([0, 1, 2, VOID]), min_size=1),
    seen=st.lists(st.integers(-3, 300), min_size=1),
)
def test_a_table_of_values_is_a_dictionary(known, seen):
    table = ClassTable(("a", "b", "c"), values=known)
    if all(value in known for value in seen):
        assert table.of_values(np.array(seen), "it").tolist() == [known[value] for value in seen]
    else:
        with pytest.raises(ValueError, match="none of the"):
            table.of_values(np.array(seen), "it")


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: ClassTable((), values={0: 0}), "names 0 classes"),
        (lambda: ClassTable(("a",)), "0 values and 0 colours"),
        (lambda: ClassTable(("a",), values={0: 0}, colours={(0, 0, 0): 0}), "1 values and 1 colours"),
        (lambda: ClassTable(("a",), values={4: 1}), "maps 4 to 1"),
        (lambda: ClassTable.coloured([((0, 0, 0), "a"), ((0, 0, 0), "b")]), "name each once"),
    ],
)
def test_tables_that_make_no_sense_are_refused(refuses, make, part):
    with refuses(part):
        make()


def write_cityscapes(folder):
    for part, cities in (("train", ("aachen", "bochum")), ("val", ("lindau",))):
        for city in cities:
            pictures, labels = folder / "leftImg8bit" / part / city, folder / "gtFine" / part / city
            pictures.mkdir(parents=True)
            labels.mkdir(parents=True)
            ids = np.array([[7, 33, 0], [255, 31, 19]], np.uint8)
            Image.new("RGB", (3, 2)).save(pictures / f"{city}_000000_000019_leftImg8bit.png")
            Image.fromarray(ids).save(labels / f"{city}_000000_000019_gtFine_labelIds.png")
            Image.new("RGB", (3, 2)).save(labels / f"{city}_000000_000019_gtFine_color.png")


def test_cityscapes_maps_its_ids_to_19_classes(tmp_path, refuses):
    write_cityscapes(tmp_path)
    found = read_samples(str(tmp_path))
    assert (len(found.train), len(found.test), found.valid) == (2, 1, None)
    assert len(found.train.class_names) == 19 and found.train.class_names[13] == "car"
    assert found.train.select(slice(None)).labels.tolist() == [[[0, 18, VOID], [VOID, 16, 6]]] * 2
    label = tmp_path / "gtFine" / "train" / "bochum" / "bochum_000000_000019_gtFine_labelIds.png"
    Image.fromarray(np.full((2, 3), 34, np.uint8)).save(label)
    with refuses("bochum", "the value 34"):
        cityscapes(tmp_path).train.select(slice(None))
    label.unlink()
    with refuses("bochum", "has no label", "labelIds"):
        cityscapes(tmp_path)


def test_the_19_classes_are_the_published_ones():
    # The table of Cordts et al. (2016): of ids 0 to 33, these are left out of the evaluation.
    void = {0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255}
    assert {value for value, place in CITYSCAPES.values.items() if place == VOID} == void
    kept = [place for value, place in sorted(CITYSCAPES.values.items()) if place != VOID]
    assert kept == list(range(19))


def packed(path, labels, number=3, shape=(8, 8)):
    files = []
    for place in range(number):
        buffer = io.BytesIO()
        Image.fromarray(np.full((*shape, 3), 40 * place, np.uint8)).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    np.savez(
        path,
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=labels,
        class_names=np.array(NAMES),
    )


@pytest.mark.parametrize("valid", [None, "val", "valid"])
def test_packed_label_maps(tmp_path, refuses, valid):
    labels = values((3, 8, 8))
    for name in ("train", "test", *([valid] if valid else [])):
        packed(tmp_path / f"{name}.npz", labels)
    found = packed_pictures(tmp_path, limit=2, lazy=True)
    assert len(found.train) == 2 and (found.valid is None) == (valid is None)
    assert np.array_equal(found.train.select(slice(None)).labels.numpy(), CLASSES[labels[:2]])
    packed(tmp_path / "train.npz", np.full((3, 8, 8), 9, np.uint8))
    with refuses("train.npz", "the value 9"):
        packed_pictures(tmp_path)
    packed(tmp_path / "train.npz", values((3, 8, 4)))
    with refuses("label maps of 8x4", "pictures of 8x8"):
        packed_pictures(tmp_path)


def test_samples_with_both_kinds_of_labels_are_selected_together(refuses):
    maps = torch.from_numpy(CLASSES[values((4, 2, 2))])
    both = Samples(torch.arange(4), maps, ("a", "b", "c"), torch.tensor([1, 0, 1, 0]), ("day", "night"))
    picked = both.select(torch.tensor([2, 1]))
    assert picked.scene_labels.tolist() == [1, 0] and torch.equal(picked.labels, maps[[2, 1]].long())
    assert torch.equal(torch.cat([part.labels for part in both.batches(3)]), maps.long())
    assert both.restrict(slice(1)).labels.dtype == torch.uint8
    assert repr(both) == "Samples(4 of () int64, 3 classes at each pixel, 2 of the whole)"
    whole = SampleSplits(both, both).by_scene()
    assert whole.train.class_names == ("day", "night") and torch.equal(whole.train.labels, both.scene_labels)
    assert whole.train.by_scene() is whole.train and len(whole.hold_out(1, torch.Generator()).valid) == 2
    with refuses("none of the whole"):
        Samples(torch.arange(4), maps, ("a", "b", "c")).by_scene()
    with refuses("no one class"):
        both.few(1, torch.Generator())


@pytest.mark.parametrize(
    ("labels", "names", "scene", "parts"),
    [
        (torch.full((2, 3, 3), 4, dtype=torch.uint8), ("a", "b"), None, ("from 4 to 4", "255 for void")),
        (torch.full((2, 3, 3), -1), ("a", "b"), None, ("from -1",)),
        (torch.zeros(2, 3, 3, dtype=torch.int32), ("a", "b"), None, ("int32", "(2, 3, 3)")),
        (torch.zeros(2, dtype=torch.int64), ("a",), torch.zeros(2, dtype=torch.int64), ("beside each label map",)),
        (torch.zeros(2, 3, 3).byte(), ("a",), torch.zeros(3, dtype=torch.int64), ("(3,)", "beside each label map")),
        (torch.zeros(2, 3, 3).byte(), ("a",), torch.tensor([0, 1]), ("from 0 to 1", "1 classes")),
    ],
)
def test_label_maps_that_do_not_fit_are_refused(refuses, labels, names, scene, parts):
    with refuses(*parts):
        Samples(torch.zeros(2, 1, 3, 3), labels, names, scene, ("day",) if scene is not None else ())


def test_a_label_map_has_the_size_of_its_picture(refuses):
    maps = torch.zeros(2, 3, 3).byte()
    with refuses("label maps of (3, 3)", "pictures of (3, 4)"):
        Samples(torch.zeros(2, 1, 3, 4), maps, ("a",))
    assert len(Samples((torch.zeros(2, 5), torch.zeros(2, 1, 3, 3)), maps, ("a",))) == 2  # features beside pictures


def test_parts_have_the_same_classes_of_the_whole(refuses):
    maps = torch.zeros(2, 3, 3).byte()
    day, night = (Samples(torch.zeros(2), maps, ("a",), torch.zeros(2).long(), (name,)) for name in ("day", "night"))
    with refuses("('day',)", "('night',)"):
        SampleSplits(day, night)


def test_encoded_labels_have_the_classes_of_their_table(tmp_path, refuses):
    write_camvid(tmp_path, parts=("train",))
    files = SeparateFiles(tuple(sorted((tmp_path / "trainannot").iterdir())))
    maps = EncodedLabelMaps(files, torch.arange(3), (5, 7), table=ClassTable.numbered(NAMES))
    assert repr(maps) == "EncodedLabelMaps(3 of (5, 7))"
    with refuses("('sky', 'road', 'car')", "('sky',)"):
        Samples(torch.zeros(3, 1), maps, ("sky",))


def test_a_size_is_for_folders(refuses):
    with refuses("size=(8, 8)", "'digits'"):
        read_samples("digits", size=(8, 8))


def test_the_public_street_scenes(public_sets):
    found = read_samples("camvid", limit=20)
    assert (len(found.train), len(found.valid), len(found.test)) == (20, 101, 233)
    assert found.test.inputs.shape == (233, 3, 120, 160) and found.test.class_names[-1] == "bicyclist"
    assert set(found.test.labels.unique().tolist()) == {*range(11), VOID}
