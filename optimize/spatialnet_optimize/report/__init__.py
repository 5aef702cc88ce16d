"""Reports: `html_report.py` (of a build) and `model_card.py` (of a model)."""
