"""Parts of ``benchmarks/reranking.py`` and ``benchmarks/one_critic.py``."""
