"""`spatialnet-edge serve`: the runtime on a computer that nobody can reach.

Reading order: `config.py` (what it is told), `service.py` (what it does), `model_choice.py` (which bundle flies),
`camera_worker.py` (one camera), and what they stand on: `start_guard.py` and `watchdog.py` (who ends a process that hangs),
`crash_loop.py`, `lock.py` (one process a device), `integrity_monitor.py` (is it still the same model), `throttle.py` (too hot, too
little power), `readiness.py` (does it do its work), and what it says of itself: `diagnostics.py`, `events.py`, `health.py`,
`metrics.py`.
"""
