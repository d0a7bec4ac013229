"""Parts of ``continual.py`` and ``multi_task.py``."""
