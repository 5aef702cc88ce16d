"""Sources of frames.

Start with `registry.py` (the `Source` protocol and the URI grammar), then `stills.py` and `video.py`. `supervised.py`,
`capture_process.py` and `shm_transport.py` run a camera in a separate process.
"""
