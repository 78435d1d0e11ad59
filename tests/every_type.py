"""A config with every built-in type and nearly every file format, and the external files it reads."""

from pathlib import Path

import numpy as np

FRAMES = 6

_CONFIG = """
representations:
  rgb: {{type: color/rgb}}
  photo: {{type: color/rgb, codec: jpg}}
  fast: {{type: color/rgb, codec: rgb-delta}}
  plain: {{type: color/rgb, codec: png}}
  web: {{type: color/rgb, codec: webp}}
  hsv: {{type: color/hsv, deps: [rgb]}}
  virtual: {{type: color/hsv, deps: [rgb], store: false}}
  canny: {{type: edges/canny}}
  raw_canny: {{type: edges/canny, codec: npy}}
  sobel: {{type: edges/sobel}}
  fast_sobel: {{type: edges/sobel, codec: u8-delta}}
  flow: {{type: flow/dis, params: {{preset: ultrafast}}}}
  kitti: {{type: flow/dis, params: {{preset: ultrafast}}, codec: flow-kitti}}
  image_flow: {{type: flow/dis, params: {{preset: ultrafast}}, codec: flow-jxl}}
  halftone: {{type: soft-segmentation/halftone, params: {{resolution: [32, 48]}}}}
  boundaries: {{type: soft-segmentation/generalized-boundaries}}
  sift: {{type: descriptor/sift}}
  sift_json: {{type: descriptor/sift, codec: json.zst}}
  sift_arrow: {{type: descriptor/sift, codec: arrow}}
  normals: {{type: normals/svd, params: {{sensor_fov: 60}}, deps: [depth]}}
  fast_normals: {{type: normals/svd, params: {{sensor_fov: 60}}, deps: [depth], codec: normals-delta}}
  imu: {{type: external/table, params: {{path: "{folder}/imu.csv", frame_column: frame}}}}
  json_imu: {{type: external/table, params: {{path: "{folder}/imu.csv", frame_column: frame}}, codec: json}}
  caption: {{type: external/table, params: {{path: "{folder}/captions.csv", frame_column: frame, columns: [text]}}}}
"""

_FILES = {  # name: folder of its files, other parameters, other keys
    "depth": ("depth", "kind: depth, unit: m", ""),
    "log_depth": ("depth", "kind: depth, unit: m", "codec: log-jxl"),
    "scores": ("scores", "kind: logits, axes: CHW", ""),
    "fast_scores": ("scores", "kind: logits, axes: CHW", "codec: gaplog-delta"),
    "best": ("scores", "kind: logits, axes: CHW", "store_as: top-k"),
    "classes": ("scores", "kind: logits, axes: CHW", "store_as: indices"),
    "mask": ("mask", "kind: mask", ""),
    "bits": ("mask", "kind: mask", "codec: bits.npy.zst"),
    "boxes": ("boxes", "kind: boxes", ""),
    "raw_boxes": ("boxes", "kind: boxes", "codec: npy.zst"),
    "json_boxes": ("boxes", "kind: boxes", "codec: json"),
    "embedding": ("embedding", "kind: embedding", "codec: f16.npy"),
}


def every_type(folder: Path, height: int, width: int) -> str:
    """Write the external files for frames of this size, and return the config."""
    rng = np.random.default_rng(1)
    for name in ("depth", "scores", "mask", "boxes", "embedding"):
        (folder / name).mkdir(parents=True)
    rows = np.linspace(1, 9, height, dtype=np.float32)[:, None]
    for frame in range(FRAMES):
        np.save(folder / "depth" / f"{frame}.npy", rows + rng.random((height, width), np.float32) + frame)
        np.save(folder / "scores" / f"{frame}.npy", rng.normal(0, 3, (5, height, width)).astype(np.float32))
        np.save(folder / "mask" / f"{frame}.npy", rng.random((height, width)) > 0.5)
        np.save(folder / "boxes" / f"{frame}.npy", rng.random((frame, 5), np.float32) * 30)  # none at frame 0
        np.save(folder / "embedding" / f"{frame}.npy", rng.normal(size=16).astype(np.float32))
    (folder / "imu.csv").write_text("frame,ax,ay\n" + "".join(f"{i},{i / 3},{-i}\n" for i in range(FRAMES)))
    (folder / "captions.csv").write_text("frame,text\n" + "".join(f"{i},frame {i} é\n" for i in range(FRAMES - 1)))
    files = [
        f'  {name}: {{type: external/files, params: {{path: "{folder}/{source}/{{frame}}.npy", {params}}}, {keys}}}\n'
        for name, (source, params, keys) in _FILES.items()
    ]
    return _CONFIG.format(folder=folder) + "".join(files)
