from pathlib import Path

from eomt_mm import checkpoints


def test_checkpoints_of_a_run(toy_config, toy_run):
    config = toy_config(max_iters=16)
    config.default_hooks.checkpoint.save_best = 'mIoU'
    toy_run(config)
    work_dir = Path(config.work_dir)
    # Every 5 and the last, three kept; mIoU is constant, hence best the first time.
    names = {path.name for path in work_dir.iterdir() if path.suffix == '.pth'}
    assert names == {f'iter_{i}.pth' for i in (10, 15, 16)} | {'best_mIoU_iter_4.pth'}
    last = (work_dir / 'last_checkpoint').read_text()
    assert Path(last) == work_dir / 'iter_16.pth'
    checkpoint = checkpoints.read(last)
    assert checkpoint['meta']['iter'] == 16
