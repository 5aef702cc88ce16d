"""The devices that a bundle can be built for.

Start with `catalogue.py` and `targets.toml` (the devices), then `roofline.py` (predicted latency on a device).
"""
