"""The gateway: a gRPC server that speaks the contract in front of engines.

It never imports the client, and the client never imports it.
"""
