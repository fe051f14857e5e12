"""The least training that mmengine runs: one linear layer, two images, no data."""

import torch
from mmengine.runner import Runner


class Model(torch.nn.Linear):
    """Learns nothing much."""

    def train_step(self, data, optim_wrapper):
        loss = self(torch.ones(1, 2)).sum()
        optim_wrapper.update_params(loss)
        return dict(loss=loss)


def train(folder, epochs, hook="visdet_assigners.SafeCheckpointHook", **arguments):
    runner = Runner(
        Model(2, 1),
        str(folder),
        train_dataloader=dict(dataset=[0, 1], sampler=dict(type="DefaultSampler", shuffle=False), batch_size=1),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        default_hooks=dict(checkpoint=dict(type=hook, interval=1, **arguments)),
        experiment_name=folder.name,
        log_level="ERROR",
    )
    runner.train()
    return runner
