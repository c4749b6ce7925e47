# SPDX-License-Identifier: Apache-2.0
"""The configuration that the guard has accepted: what the service runs on until the next reload.

A file that breaks later changes nothing for a component that starts meanwhile.
"""

import hashlib
import logging
from pathlib import Path

from pydantic import ValidationError

from gpuwarden.config.loader import load_configuration
from gpuwarden.config.models import Configuration
from gpuwarden.names import ACCEPTED_CONFIGURATION_FILE

log = logging.getLogger(__name__)


def accepted_configuration(path: Path = ACCEPTED_CONFIGURATION_FILE) -> Configuration | None:
    """What the guard accepted last in this boot; None where nothing, or nothing readable, is."""
    try:
        return Configuration.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        # Another version's, or cut short: the files are read instead.
        log.warning("%s is not usable: %s", path, str(error).splitlines()[0])
        return None


def effective_configuration() -> Configuration:
    """The accepted configuration, else the files'.

    :raises ConfigurationError: nothing was accepted yet and the files are wrong.
    """
    return accepted_configuration() or load_configuration()


def digest(configuration: Configuration) -> str:
    """The same for equal configurations, so that a plan can say which one it was made for."""
    return hashlib.sha256(configuration.model_dump_json().encode()).hexdigest()[:16]
