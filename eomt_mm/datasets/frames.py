"""Frames of a video file or of a folder, and a video of other frames."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log

from eomt_mm.errors import UserError
from eomt_mm.files import atomic_path

from .photos import read_photo

CODECS = {'.mp4': 'mp4v', '.avi': 'MJPG'}
_MP4 = {b'ftyp', b'moov', b'mdat', b'wide', b'free'}  # MOV among them
IMAGES = {'.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff'}
# An estimate of the number of frames may be so far off, as a share.
SLACK = 0.05


class VideoFrames:
    """The frames of a video file.

    Args:
        path (Path): The file.
        most (int, optional): Frames to read; None reads all.

    Raises:
        UserError: It is no video, or was cut short where its frame list stands.
    """

    def __init__(self, path: Path, most: int | None = None) -> None:
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise UserError(
                f'{path} cannot be opened as a video: is it whole, and in a format '
                'that OpenCV reads (.mp4, .avi)?'
            )
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or None
        # OpenCV has a negative number where the file tells nothing.
        self.stored = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self._asked = most
        self.count = min(self.stored, most or self.stored)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield frames, RGB (H, W, 3) uint8.

        Where the number of frames is an estimate, a warning tells of missing ones.

        Raises:
            UserError: The file ends before the frames that its header counts.
        """
        number = 0
        while self._asked is None or number < self._asked:
            found, frame = self._capture.read()
            if not found:
                break
            number += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        if number == 0 and not self.stored:
            raise UserError(f'{self.path} has no frames: give another video')
        if number == 0 or (number < self.count and _counts_frames(self.path)):
            raise UserError(
                f'{self.path} ends in frame {number + 1} of {self.stored}: copy it '
                f'again, or take the whole frames with --frames {number}'
            )
        if number < (1 - SLACK) * self.count:
            print_log(
                f'{self.path}: {number} frames were read, and by its duration it has '
                f'about {self.stored}: is it cut short, or is its frame rate not '
                'constant?',
                logger='current',
                level=logging.WARNING,
            )


def _counts_frames(path: Path) -> bool:
    """Whether the header of a video counts frames, as those of AVI and MP4 do.

    Of other formats OpenCV estimates the number from the duration. The name of a file
    may be that of another format.
    """
    with path.open('rb') as file:
        start = file.read(12)
    return start[8:] == b'AVI ' or start[4:8] in _MP4


class FolderFrames:
    """The images of a folder as frames, in the order of their names.

    Args:
        path (Path): The folder.
        most (int, optional): Frames to read; None reads all.
        steps (list): Start of a pipeline that loads an image.

    Raises:
        UserError: There are none.
    """

    fps = None

    def __init__(self, path: Path, most: int | None, steps: list) -> None:
        found = sorted(
            p
            for p in path.iterdir()
            if p.suffix.lower() in IMAGES and not p.name.startswith('.')
        )
        if not found:
            raise UserError(
                f'{path} has no frames: expected files ending in '
                f'{", ".join(sorted(IMAGES))}'
            )
        self._paths, self._steps = found[:most], steps
        self.count = len(self._paths)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield frames, RGB (H, W, 3) uint8.

        Raises:
            UserError: A frame is damaged, or has another size than the first, which a
                video cannot.
        """
        shape = None
        for path in self._paths:
            try:
                frame = read_photo(dict(img_path=str(path)), self._steps)
            except OSError as error:
                raise UserError(
                    f'{path} is not an image that can be read: {error}; mend it, or '
                    'take the frames before it with --frames'
                ) from error
            shape = shape or frame.shape
            if frame.shape != shape:
                raise UserError(
                    f'{path} has {frame.shape[1]} x {frame.shape[0]} pixels, the first '
                    f'frame {shape[1]} x {shape[0]}: bring all to one size'
                )
            yield frame


class _Writer:
    """Opens with the first frame, whose size all have."""

    def __init__(self, partial: Path, fps: float) -> None:
        self._partial, self._fps, self._writer = partial, fps, None

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, RGB (H, W, 3) uint8."""
        if self._writer is None:
            code = cv2.VideoWriter_fourcc(*CODECS[self._partial.suffix.lower()])
            size = frame.shape[1], frame.shape[0]
            self._writer = cv2.VideoWriter(str(self._partial), code, self._fps, size)
            if not self._writer.isOpened():
                raise UserError(
                    f'OpenCV cannot write {self._partial.suffix} here: give --out a '
                    'file that ends otherwise (.mp4, .avi)'
                )
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self) -> None:
        """Complete the file."""
        if self._writer is not None:
            self._writer.release()


@contextmanager
def video_writer(path: Path, fps: float) -> Iterator[_Writer]:
    """Write a video whole or not at all.

    Args:
        path (Path): The file, .mp4 or .avi.
        fps (float): Frames per second.

    Yields:
        _Writer: Its `add` takes frames.

    Raises:
        UserError: The name ends otherwise.
    """
    if path.suffix.lower() not in CODECS:
        raise UserError(f'{path} ends in {path.suffix!r}: expected {", ".join(CODECS)}')
    with atomic_path(path) as partial:
        writer = _Writer(partial, fps)
        try:
            yield writer
        finally:
            writer.close()
