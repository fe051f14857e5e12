from visdet.models.task_modules import assigners, samplers  # noqa: F401
