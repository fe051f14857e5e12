from visdet.engine.registry import TASK_UTILS  # noqa: F401
