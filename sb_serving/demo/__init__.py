"""The demo: invented but believable invocations, with the truth behind them known.

The one generator for the demo, the tests and the benchmarks. `world` says what exists (the plan,
skills, users, versions, planted facts), `draw` says what happens (rows). Files, stores and the
clock belong to the callers.
"""

from sb_serving.demo.draw import Chunk, chunks, invocations
from sb_serving.demo.world import DemoPlan, Truth, truth

__all__ = ["Chunk", "DemoPlan", "Truth", "chunks", "invocations", "truth"]
