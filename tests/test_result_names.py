"""Photos of one name in several folders keep a result each."""

import pytest

from eomt_mm.result_names import flat_names, part_joint, result_names


def test_one_folder_has_plain_names():
    assert result_names(['/d/a.jpg', '/d/b.c.jpg']) == {
        '/d/a.jpg': 'a',
        '/d/b.c.jpg': 'b.c',
    }


def test_folders_are_mirrored():
    photos = ['/d/ulm/a.jpg', '/d/bonn/a.jpg', '/d/bonn/x/a.jpg']
    assert [*result_names(photos).values()] == ['ulm/a', 'bonn/a', 'bonn/x/a']


def test_suffixes_tell_photos_apart():
    assert [*result_names(['a.jpg', 'a.png']).values()] == ['a.jpg', 'a.png']


def test_reserved_names_are_left_free():
    assert result_names(['panels.jpg'], reserved=['panels']) == {
        'panels.jpg': 'panels.jpg'
    }


def test_one_photo_listed_twice_and_none():
    assert result_names(['a.jpg', './a.jpg']) == {'a.jpg': 'a', './a.jpg': 'a'}
    assert result_names([]) == {}


@pytest.mark.parametrize(
    ('names', 'joint'),
    [
        (['a', 'b'], '_'),
        (['a_b_1', 'x'], '_'),
        (['a', 'a_1'], '__'),
        (['a', 'a_1', 'a__3'], '___'),
        (['d/a', 'd/a_0'], '__'),
    ],
)
def test_no_photo_has_the_name_of_a_part_of_another(names, joint):
    assert part_joint(names) == joint
    parts = [f'{name}{joint}{i}' for name in names for i in range(12)]
    assert len({*parts, *names}) == len(parts) + len(names)


@pytest.mark.parametrize(
    'names',
    [['a/b', 'c'], ['a/b', 'a__b'], ['a_/b', 'a/_b'], ['a/b__2__c', 'a__2__b/c']],
)
def test_flat_names_are_as_many(names):
    flat = flat_names(names)
    assert [*flat] == names
    assert len({*flat.values()}) == len(names)
    assert not any('/' in name for name in flat.values())
