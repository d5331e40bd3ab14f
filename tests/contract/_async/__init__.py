"""Authored for asyncio; the mirror runs the same with threads."""
