"""The service `spatialnet-edge serve`: unattended operation.

Reading order: `config.py` (configuration), `service.py` (main loop), `model_choice.py` (choice of the bundle),
`camera_worker.py` (one camera). Then the monitors: `start_guard.py` and `watchdog.py` (end a hung process),
`crash_loop.py`, `lock.py` (one process per device), `integrity_monitor.py` (golden tests), `throttle.py` (temperature and
power), `readiness.py` (is it working). Then the reports: `diagnostics.py`, `events.py`, `health.py`,
`metrics.py`.
"""
