"""Sessions, streams, the pipeline, and the golden test.

Start with `session.py` (composes source, engine, monitors and sinks) and `options.py` (stream options), then
`stream.py` (results of one source, and the shutdown order), `pipeline.py` (the path of a frame), `engine_handle.py` (a
replaceable engine), `frame_stats.py` (captured = emitted + skipped) and `golden.py` (the golden test).
"""
