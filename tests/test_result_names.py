"""Photos of one name in several folders keep a result each."""

from eomt_mm.result_names import result_names


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
