"""One module per source of invocations: bytes in, `Invocation` records out.

Parsers know neither the store nor the clock; `sources/files.py` drives them over files.
"""
