# SPDX-License-Identifier: Apache-2.0
"""The only importer of dbus-next: hardened connection, exported objects, errors. No policy here."""
