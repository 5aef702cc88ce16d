"""Studies of a network or its data; each is a command that prints a table.

`baseline.py` (traditional features; `by_place.py` keeps places apart), `ablation.py` (contribution of each part),
`soup.py` (averaged weights), `near_duplicates.py` (images in both splits), `missing_bands.py` (accuracy without some bands),
`known.py` (the head `known`) and `cloud_gate.py` (false alarms of published cloud networks).
"""
