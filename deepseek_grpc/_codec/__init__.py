"""Protobuf ⇄ types: the only translator. Pure functions, used by the client and the gateway alike.

`request` has what is asked, `answer` what comes back, `status` what went wrong.
"""
