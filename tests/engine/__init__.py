# SPDX-License-Identifier: Apache-2.0
"""The transformers engine, on the CPU, with a tiny Gemma 3; runs in build/engine-venv."""
