__version__ = "0.2.0"

import warnings as _warnings

# fastai scripts a few layers when it is imported, and torch has begun to warn about that.
_warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.* is deprecated", category=FutureWarning)
