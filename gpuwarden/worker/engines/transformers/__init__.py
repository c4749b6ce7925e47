# SPDX-License-Identifier: Apache-2.0
"""The engine for models of the transformers library: requests join and leave between its steps.

What the library and torch have is used as it is: model classes, weights, tokenizer and image
processor, its cache and attention interfaces, compilation and graph capture. Written here is what
they lack: a cache with a position for each slot, masks from these positions, buckets, groups of
joiners, sampling by slot. The modules import torch and transformers where they are called first:
the runtime around them runs without.
"""
