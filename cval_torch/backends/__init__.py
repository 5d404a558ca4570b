"""Backends: one method, `select(pool, stages)`, in process or over HTTP."""
