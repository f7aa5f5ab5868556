"""How fast the library is: one command a question, each against a plain reference in the same run. See README.md."""

import os

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command line does, before PyTorch is imported
