# SPDX-License-Identifier: Apache-2.0
"""The TOML configuration: models, loading, generated reference. Its only reader."""

from gpuwarden.config.accepted import accepted_configuration, digest, effective_configuration
from gpuwarden.config.loader import load_configuration
from gpuwarden.config.models import Configuration
from gpuwarden.config.problems import ConfigurationError, Problem

__all__ = [
    "Configuration",
    "ConfigurationError",
    "Problem",
    "accepted_configuration",
    "digest",
    "effective_configuration",
    "load_configuration",
]
