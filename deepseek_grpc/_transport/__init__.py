"""The only floor of the client that performs RPCs: `aio` for tasks, `sync` for threads, the same names in both."""
