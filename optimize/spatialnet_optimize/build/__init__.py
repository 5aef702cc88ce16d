"""`build`: from a bundle or checkpoint to the fastest bundle that passes the gates.

Start with `build.py`, then `variants.py` (every form that a target may run), `bundle_writer.py` (the bundle that is written) and
`build_cache.py` (what need not be done twice).
"""
