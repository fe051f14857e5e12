from visdet.models import heads, task_modules  # noqa: F401
