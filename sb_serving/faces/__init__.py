"""Whatever may open a port or a pipe: MCP, the WebSocket feed, Prometheus, HTTP.

Faces turn a `Frame` or an answer into bytes; they compute nothing.
"""
