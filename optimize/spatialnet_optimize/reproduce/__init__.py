"""From public weights to a shipped model: the runs of a recipe, teaching to refuse, recalibration and export.

Start with `recipe.py` (the TOML file), then `plan.py` (its stages).
"""
