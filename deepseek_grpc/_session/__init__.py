"""The session's state machines, one for each end, without I/O.

Messages go in as bytes, turns change; turns change, messages come out, batched and numbered. Drivers own the stream and
the waiting: they hand every message they read to `receive` and write whatever `take` returns, as soon as the last write
is done. That alone makes frames coalesce under load and leave at once without it.
"""
