"""The commands of this room, one short file each: `build.py` (and `evaluate`), `export.py`, `cost.py`."""
