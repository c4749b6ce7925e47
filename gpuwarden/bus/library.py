# SPDX-License-Identifier: Apache-2.0
"""The one place that imports dbus-next: pins the version we overrode, and bounds its cache.

dbus-next 0.2.3 is the last release (2021). Our hardened connection overrides private members of
exactly that version, so any other is refused at import.
"""

from functools import lru_cache

from dbus_next.__version__ import __version__ as _installed_version
from dbus_next._private.marshaller import Marshaller
from dbus_next._private.unmarshaller import Unmarshaller
from dbus_next.aio.message_bus import MessageBus
from dbus_next.auth import Authenticator, AuthExternal
from dbus_next.constants import BusType, MessageFlag, MessageType
from dbus_next.errors import AuthError
from dbus_next.message import Message
from dbus_next.signature import SignatureTree, SignatureType, Variant

__all__ = [
    "AuthError",
    "AuthExternal",
    "Authenticator",
    "BusType",
    "Marshaller",
    "Message",
    "MessageBus",
    "MessageFlag",
    "MessageType",
    "SignatureTree",
    "SignatureType",
    "Unmarshaller",
    "Variant",
]

REQUIRED_VERSION = "0.2.3"

# Measured: 20,000 different signatures grow the stock cache, which never forgets, from 22 MB to
# 199 MB; the longest take 36 kB each. We use a few dozen: 128 hold them all, or 4.6 MB of a
# stranger's.
SIGNATURES_KEPT = 128

if _installed_version != REQUIRED_VERSION:
    raise ImportError(
        f"dbus-next {_installed_version} is installed; gpuwarden.bus overrides private members of "
        f"{REQUIRED_VERSION} and runs with no other"
    )


def _bound_signature_cache() -> None:
    SignatureTree._cache.clear()
    # The library looks it up on the class at each use, so that this reaches all of them.
    bounded = lru_cache(maxsize=SIGNATURES_KEPT)(SignatureTree)
    SignatureTree._get = staticmethod(bounded)  # type: ignore[method-assign]  # the cure itself


_bound_signature_cache()
