# Mirrored by scripts/unasync.py from tests/contract/_async/__init__.py: edit that and run `make sync`.
"""Authored for asyncio; the mirror runs the same with threads."""
