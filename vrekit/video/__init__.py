"""Frame sources: video files (torchcodec), image folders, npy/npz folders, arrays. `open_source` picks one."""
