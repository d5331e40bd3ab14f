"""The client for asyncio: authored here; `_sync` is its mirror."""
