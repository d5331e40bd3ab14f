# Mirrored by scripts/unasync.py from deepseek_grpc/_async/__init__.py: edit that and run `make sync`.
"""The client for threads: the mirror of `_async`."""
