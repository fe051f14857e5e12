"""A hook that writes down what each assigner was given and gave; the configs of these tests import it by name."""

import json
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from visdet_assigners.observe import record_assignments

FILE = "assignments.jsonl"


@HOOKS.register_module(force=True)
class CountAssignments(Hook):
    """One line for each call: iteration, assigner, image, its objects, its positives, and how many of them had one."""

    def before_train(self, runner):
        self.watching = record_assignments(runner.model)
        self.records = self.watching.__enter__()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with Path(runner.work_dir, FILE).open("a") as lines:
            for record in self.records:
                positives = record.positives_per_object()
                row = dict(
                    iteration=runner.iter, where=record.where, assigner=record.assigner, image=record.image.img_id,
                    objects=record.num_objects, positives=int(positives.sum()), with_one=int((positives > 0).sum()),
                )  # fmt: skip
                lines.write(json.dumps(row) + "\n")
        self.records.clear()

    def after_train(self, runner):
        self.watching.__exit__(None, None, None)
