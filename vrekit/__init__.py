"""vrekit: raw video in, sharded multi-modal training data out.

Importing this package is cheap: torch, torchcodec, cv2 and lance load only when something needs them.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
