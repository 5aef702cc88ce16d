"""`build`: from a bundle or a checkpoint to the fastest bundle that passes the gates.

Start with `build.py` (the stages), then `labelled_data.py` (images for calibration and evaluation), `variants.py` (FP16, INT8
and so on), `bundle_writer.py` (writes the bundle) and `build_cache.py` (reuses earlier builds).
"""
