"""Frame sources: video files (torchcodec), image folders, npy/npz folders, arrays in memory. `open_source` picks one."""
