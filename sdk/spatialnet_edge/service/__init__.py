"""`spatialnet-edge serve`: the runtime on a computer that nobody can reach.

Reading order: `config.py` (what it is told), `service.py` (what it does), `camera.py` (one camera's way), and what they stand on:
`starts.py` (crash loops), `lock.py` (one process a device), `watchdog.py` (who ends a process that hangs), `integrity.py` (is it
still the same model), `throttle.py` (too hot, too little power), `events.py` and `status.py` (what it says of itself).
"""
