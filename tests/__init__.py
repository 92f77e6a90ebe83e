"""Tests of Plait. No test measures time, so neither may hypothesis: a busy machine is no fault of ours."""

from hypothesis import HealthCheck, settings

settings.register_profile("plait", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("plait")
