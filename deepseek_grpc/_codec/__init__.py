"""Protobuf ⇄ types: the only translator. Pure functions, used by the client and the gateway alike.

`request` has what is asked, `checks` what it must satisfy, `answer` what comes back, `status` what went wrong.
"""
