"""MMEngine's loader of checkpoints, with the safe reader for each kind of address.

MMEngine's own functions unpickle files freely where torch permits it, and downloads
always. Everything that uses `CheckpointLoader` (the Runner, the inferencers,
`init_cfg`) loads through this module.
"""

import os
from http.client import HTTPException
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.fileio import get_file_backend
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from eomt_mm.errors import UserError

from .content import refuse_odd
from .reading import read, refuse_nan


def read_finite(path: str | Path, map_location: object = None) -> dict:
    """Read a checkpoint as MM expects it, without NaN; see `read`."""
    content = read(path, map_location=map_location)
    refuse_odd(content, path)
    for part in (content, content.get('state_dict'), content.get('ema_state_dict')):
        if isinstance(part, dict):
            tensors = {k: v for k, v in part.items() if isinstance(v, torch.Tensor)}
            refuse_nan(tensors, path)
    return content


def load_from_local(filename: str, map_location: object = None) -> dict:
    """Load a local file."""
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'{path} can not be found.')
    return read_finite(path, map_location)


def load_from_http(
    filename: str, map_location: object = None, model_dir: str | None = None
) -> dict:
    """Load over HTTP; each machine downloads once, into torch's cache."""
    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    name = os.path.basename(urlparse(filename).path)
    if not name:
        raise UserError(f'{filename} names no file: give the address of a checkpoint')
    path = os.path.join(folder, name)
    if get_dist_info()[0] == 0 and not os.path.isfile(path):
        os.makedirs(folder, exist_ok=True)
        prefix = torch.hub.HASH_REGEX.search(name)
        try:
            torch.hub.download_url_to_file(filename, path, prefix and prefix[1])
        # RuntimeError: the checksum in the name is another.
        except (OSError, HTTPException, RuntimeError) as error:
            raise UserError(
                f'{filename} cannot be downloaded ({error}): look at the address and '
                'the connection, or download it yourself and give the file'
            ) from error
    barrier()
    try:
        return read_finite(path, map_location)
    except UserError as error:
        # A connection that breaks off leaves half a file, which would stay.
        raise UserError(
            f'{error}. It is the download of {filename}: remove it to try again'
        ) from error


def load_from_ceph(filename: str, map_location: object = None) -> dict:
    """Load from a store of one of MMEngine's file backends."""
    data = get_file_backend(filename, backend_args=dict(backend='petrel')).get(filename)
    with NamedTemporaryFile(suffix='.pth') as file:
        file.write(data)
        file.flush()
        return read_finite(file.name, map_location)


def load_from_pavi(filename: str, map_location: object = None) -> dict:
    """Load from Pavi's store of models."""
    try:
        from pavi import modelcloud
    except ImportError as error:
        raise UserError(f'{filename} needs the package pavi: install it') from error
    model = modelcloud.get(filename.removeprefix('pavi://'))
    with TemporaryDirectory() as folder:
        path = os.path.join(folder, os.path.basename(model.name))
        model.download(path)
        return read_finite(path, map_location)


def register() -> None:
    """Put these functions in the place of MMEngine's."""
    # The addresses of torchvision and OpenMMLab lead to its function of this name.
    mmengine_checkpoint.load_from_http = load_from_http
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(
        ('http://', 'https://'), load_from_http, force=True
    )
    CheckpointLoader.register_scheme(
        (r'(\S+\:)?s3://', r'(\S+\:)?petrel://'), load_from_ceph, force=True
    )
    CheckpointLoader.register_scheme('pavi://', load_from_pavi, force=True)
