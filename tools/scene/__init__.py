"""A small world of hills, roads, houses, lakes and trees, drawn with exact ground truth.

It is the demo video of `./tools/quickstart` and the measure the tests hold representations against:

    >>> from tools.scene import Scene
    >>> scene = Scene(seed=0, width=160, height=90)
    >>> frame = scene.render(0.0)
    >>> frame.depth_meters.shape, frame.normals.shape, frame.classes.dtype
    ((90, 160), (90, 160, 3), dtype('uint8'))
    >>> flow, visible = scene.flow(frame, scene.render(0.04))

Every surface is met by its own ray (heightfield march, then a root search; closed forms for houses and trees), so
depth and normals are those of the surface at the pixel's ray, not of a mesh near it.
"""

from tools.scene.camera import Camera, Pose
from tools.scene.scene import CLASSES, COLOR_MAP, Scene, SceneFrame

__all__ = ["CLASSES", "COLOR_MAP", "Camera", "Pose", "Scene", "SceneFrame"]
