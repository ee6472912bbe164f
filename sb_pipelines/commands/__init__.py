"""The commands of `sb`, one module each, each with a click command named `command`.

A command reads settings, calls one function, prints. What it calls lives in `sb_serving` or beside
this package; heavy imports stay inside the functions.
"""
