"""`build`: from a bundle or a checkpoint to the fastest bundle that passes the gates.

Start with `build.py` (the stages), then `labelled_data.py` (the images that calibrate and judge), `variants.py` (FP16, INT8 and so
on), `bundle_writer.py` (the bundle that is written) and `build_cache.py` (builds that need not be done twice).
"""
