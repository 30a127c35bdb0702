"""Class tables: the files they are read from, the values and colours they map, and the published one of Cityscapes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.data import CITYSCAPES, VOID, ClassTable, read_class_table


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


def test_the_19_classes_are_the_published_ones():
    # The table of Cordts et al. (2016): of ids 0 to 33, these are left out of the evaluation.
    void = {0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30, 255}
    assert {value for value, place in CITYSCAPES.values.items() if place == VOID} == void
    kept = [place for value, place in sorted(CITYSCAPES.values.items()) if place != VOID]
    assert kept == list(range(19))
