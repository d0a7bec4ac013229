"""Chunks from a process of its own: messages in shared memory, worker, watch, restarts."""
