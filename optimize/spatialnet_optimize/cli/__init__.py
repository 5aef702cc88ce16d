"""The commands `build` and `evaluate` (`build.py`), `export`, `cost` and `targets`."""
