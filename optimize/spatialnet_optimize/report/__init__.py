"""What people read: `html_report.py` is the report of a build, `model_card.py` the card of a model."""
