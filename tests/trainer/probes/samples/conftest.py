"""The tiny runs of the likelihood probe, which saw the strip."""

from tests.trainer.probes.likelihood.conftest import lawless_strips, strips

__all__ = ["lawless_strips", "strips"]
