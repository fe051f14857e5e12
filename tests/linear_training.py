"""The least training that mmengine runs: one linear layer, two images, no data."""

import torch
from mmengine.runner import Runner


class Model(torch.nn.Linear):
    """Learns nothing much."""

    def train_step(self, data, optim_wrapper):
        loss = self(torch.ones(1, 2)).sum()
        optim_wrapper.update_params(loss)
        return dict(loss=loss)


def train(folder, epochs, hook="visdet_assigners.SafeCheckpointHook", width=1, more=None, **arguments):
    """Train, and write a checkpoint of each epoch; ``more`` are options of the runner, the others of the hook."""
    options = dict(
        train_dataloader=dict(dataset=[0, 1], sampler=dict(type="DefaultSampler", shuffle=False), batch_size=1),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        default_hooks=dict(checkpoint=dict(type=hook, interval=1, **arguments)),
        experiment_name=folder.name,
        log_level="ERROR",
    )
    runner = Runner(Model(2, width), str(folder), **options | (more or {}))
    runner.train()
    return runner
