"""Data loaders that have something to load."""

from mmengine.runner import Runner

from eomt_mm.errors import UserError


def build_loader(runner: Runner, split: str) -> None:
    """Build a loader before the Runner does, which waits for ever on an empty one.

    Args:
        runner: Gets the loader in place of its config.
        split (str): 'train', 'val' or 'test'; without a loader nothing is done.

    Raises:
        UserError: There is no image, or not a whole batch where only whole ones count.
    """
    config = getattr(runner, f'_{split}_dataloader')
    if not isinstance(config, dict):
        return
    diff_rank_seed = runner._randomness_cfg.get('diff_rank_seed', False)
    # MMEngine prefetches as soon as a loader is iterated, so this one is asked first.
    empty = UserError(
        f'the {split} dataset is empty: look at indices, times, filter_cfg and the '
        f'annotations of {split}_dataloader'
    )
    try:
        loader = runner.build_dataloader(
            config, seed=runner.seed, diff_rank_seed=diff_rank_seed
        )
    except ValueError as error:
        if 'need at least one array' in str(error):  # MMEngine packs an empty list
            raise empty from error
        raise
    except IndexError as error:
        if 'indices' not in str(config):
            raise
        raise UserError(
            f'{split}_dataloader: indices names an image that a dataset does not have '
            f'({error}); they count from 0'
        ) from error
    images = len(loader.dataset)
    if images == 0:
        raise empty
    if len(loader) == 0:
        raise UserError(
            f'{split}_dataloader: {images} images make no whole batch of '
            f'{config["batch_size"]} for each process, and drop_last=True leaves out '
            'the rest: set a smaller batch_size, or drop_last=False'
        )
    setattr(runner, f'_{split}_dataloader', loader)
