"""The session's state machines, one for each end, without I/O.

Frames go in, turns change; turns change, frames come out, batched. Drivers own the stream and the waiting: they hand
every message they read to `receive` and write whatever `take` returns, as soon as the last write is done. That alone
makes frames coalesce under load and leave at once without it.
"""
