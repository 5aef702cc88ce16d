"""From frames to answers: sessions, streams, the pipeline, and the golden test.

Start with `session.py` (composes source, engine, monitors and sinks) and `options.py` (what a caller may choose), then
`stream.py` (results of one source, and the order of stopping), `pipeline.py` (the path of a frame), `engine_handle.py` (an engine
that can be swapped), `frame_stats.py` (captured = emitted + skipped) and `golden.py` (is it still the model that was shipped).
"""
