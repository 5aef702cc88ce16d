"""Repeatable benchmarks of the runtime."""
