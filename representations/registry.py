"""Type names of the built-in representations, and where their classes live."""

from vrekit.core.registry import Registry

REPRESENTATIONS = Registry(
    "representation type",
    {
        "color/hsv": "vrekit.representations.color.hsv:HSV",
        "color/rgb": "vrekit.representations.color.rgb:RGB",
        "descriptor/sift": "vrekit.representations.descriptor.sift:SIFT",
        "edges/canny": "vrekit.representations.edges.canny:Canny",
        "edges/sobel": "vrekit.representations.edges.sobel:Sobel",
        "external/files": "vrekit.representations.external.files:Files",
        "external/table": "vrekit.representations.external.table:Table",
        "flow/dis": "vrekit.representations.flow.dis:DIS",
        "normals/svd": "vrekit.representations.normals.svd:NormalsSVD",
        "soft-segmentation/generalized-boundaries": (
            "vrekit.representations.soft_segmentation.generalized_boundaries:GeneralizedBoundaries"
        ),
        "soft-segmentation/halftone": "vrekit.representations.soft_segmentation.halftone:Halftone",
    },
    group="vrekit.representations",
)
