"""From frames to answers: the pipeline, what it counts, and the golden test.

Start with `pipeline.py` (the path of a frame), then `frame_stats.py` (captured = emitted + skipped) and `golden.py` (does the
engine still compute the model that was shipped).
"""
