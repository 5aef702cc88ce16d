"""Losses and calibration.

Start with `multitask.py` (the loss over partly labelled heads), then `temperature_scaling.py` (calibration on held-out
images).
"""
