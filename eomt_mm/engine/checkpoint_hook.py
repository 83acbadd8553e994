"""A CheckpointHook that survives kills and diverged training."""

import math
from numbers import Real
from pathlib import Path

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook

from eomt_mm.engine.finite import non_finite
from eomt_mm.files import atomic_path
from eomt_mm.registry import HOOKS

from .wrapped import own_state


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """Saves checkpoints like MMEngine's hook, but loses none.

    The options are the same, with these differences:

    - A file is removed only after its successor is whole. MMEngine removes first.
    - `last_checkpoint` is written whole or not at all.
    - Weights with NaN or infinite values are not written, and a score that is not a
      finite number is never the best.
    """

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        if self._is_diverged(runner):
            return
        outdated = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            kept = [*self.keep_ckpt_ids, step]
            outdated = kept[: -self.max_keep_ckpts]
            self.keep_ckpt_ids.append(step)
            # Outdated ones included: a training killed before it removes them does so
            # when it is resumed.
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if outdated:
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        if not is_main_process():
            return
        with atomic_path(Path(runner.work_dir, 'last_checkpoint')) as partial:
            partial.write_text(self.last_ckpt)
        for old in outdated:
            self._remove(self.filename_tmpl.format(old))

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        if not self.save_best or self._is_diverged(runner):
            return
        # MMEngine passes over a score that is None.
        scores = {
            name: None if isinstance(s, Real) and not math.isfinite(s) else s
            for name, s in metrics.items()
        }
        # It also removes the previous best file first, unless it knows of none.
        before = self._best_paths
        self._best_paths = dict.fromkeys(before)
        super()._save_best_checkpoint(runner, scores)
        after = self._best_paths
        self._best_paths = {key: after[key] or before[key] for key in after}
        if is_main_process():
            for key, path in before.items():
                if path and after[key] and path != after[key]:
                    self._remove(path)

    @property
    def _best_paths(self) -> dict[str, str | None]:
        if len(self.key_indicators) == 1:
            return {'': self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    @_best_paths.setter
    def _best_paths(self, paths: dict[str, str | None]) -> None:
        if len(self.key_indicators) == 1:
            (self.best_ckpt_path,) = paths.values()
        else:
            self.best_ckpt_path_dict = dict(paths)

    def _remove(self, name: str) -> None:
        path = self.file_backend.join_path(self.out_dir, name)
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # DeepSpeed writes directories
            self.file_backend.rmtree(path)

    def _is_diverged(self, runner) -> bool:
        broken = non_finite(own_state(runner.model))
        # All write or none: each may hold another share of the weights.
        anywhere = torch.tensor(len(broken))
        all_reduce(anywhere, 'max')
        if anywhere:
            name = broken[0] if broken else 'the share of another process'
            runner.logger.warning(
                f'no checkpoint is written at iteration {runner.iter}: the weights '
                f'have NaN or infinite values in {name}'
            )
        return bool(anywhere)
