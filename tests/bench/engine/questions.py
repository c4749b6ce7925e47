# SPDX-License-Identifier: Apache-2.0
"""A question that makes a prompt of exactly so many tokens."""

from pathlib import Path

from gpuwarden.worker.engines.transformers.folder import open_folder
from gpuwarden.worker.engines.transformers.processing import Processor
from tests.bench.engine.sizes import Sizes


def question_of(folder: str, sizes: Sizes) -> str:
    """With one image; each letter is a token."""
    processor = Processor(open_folder(Path(folder)))
    content = [{"type": "image"}, {"type": "text", "text": ""}]
    bare = processor.rendered([{"role": "user", "content": content}])
    return "q" * max(1, sizes.prompt_tokens - len(processor.tokens(bare)))
