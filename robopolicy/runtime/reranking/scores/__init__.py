"""Scores of candidates, one file each; all have the shape of ``reranking.situation.Score``."""
