"""The TOML configuration: models, loading, generated reference. Its only reader."""

from gpuwarden.config.loader import load_configuration
from gpuwarden.config.models import Configuration
from gpuwarden.config.problems import ConfigurationError, Problem

__all__ = ["Configuration", "ConfigurationError", "Problem", "load_configuration"]
