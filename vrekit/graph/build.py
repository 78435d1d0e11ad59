"""From representation specs to a graph: classes loaded, parameters checked, outputs and codecs known."""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vrekit.codecs.base import ClipCodec, Codec
from vrekit.codecs.registry import clip_codec, codec_for
from vrekit.core.errors import ConfigError, UsageError, VrekitError
from vrekit.core.names import MAX_SUGGESTIONS, did_you_mean
from vrekit.core.spec import IMAGE_TYPE, OutputSpec, RepresentationSpec, digest, image_name
from vrekit.graph.images import Images
from vrekit.representations.base import Representation, input_count_problem
from vrekit.representations.parameters import build
from vrekit.representations.registry import representation_type
from vrekit.representations.resize import resized_spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One representation of a graph.

    Attributes:
        spec: What the config asked for.
        instance: The object that computes it.
        memory: What `instance.compute` gives.
        resized: What goes into the codec: `memory` after `output_size` and `output_dtype`.
        stored: What decoding gives back.
        codec: How it is stored; None for a virtual representation.
        compute_identity: What decides the values in memory.
        compute_digest: Digest of `compute_identity`; many may depend on the node, and each needs it.
        frame_size: (height, width) of a decoded frame, pixels.
    """

    spec: RepresentationSpec
    instance: Representation
    memory: OutputSpec
    resized: OutputSpec
    stored: OutputSpec
    codec: Codec | ClipCodec | None
    compute_identity: Mapping[str, Any]
    compute_digest: str
    frame_size: tuple[int, int]

    @property
    def name(self) -> str:
        """The representation's name."""
        return self.spec.name

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the stored values: `compute_identity`, the stored form and the codec."""
        codec = None if self.codec is None else self.codec.config()
        return {**self.compute_identity, "store_as": self.spec.store_as, "codec": codec}


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes by name, in an order in which every node comes after its dependencies."""

    nodes: Mapping[str, Node]

    def context(self, names: Iterable[str]) -> tuple[int, int]:
        """Return how many frames (before, after) each frame some representations need."""
        contexts = [self.nodes[name].instance.context for name in names]
        return max((before for before, _ in contexts), default=0), max((after for _, after in contexts), default=0)

    def uses_frames(self, names: Iterable[str]) -> bool:
        """Return whether one of some representations looks at pixels of the video."""
        return any(type(self.nodes[name].instance).uses_frames for name in names)

    def closure(self, names: Iterable[str]) -> list[str]:
        """Return `names` and everything they are computed from, in computing order."""
        wanted = set(names)
        for name in reversed(list(self.nodes)):  # dependents come first here
            if name in wanted:
                wanted.update(self.nodes[name].spec.dependencies)
        return [name for name in self.nodes if name in wanted]


def topological_order(specs: Sequence[RepresentationSpec]) -> list[RepresentationSpec]:
    """Return the specs so that each comes after its dependencies; config order where there is a choice.

    Raises:
        ConfigError: If a dependency is missing or representations depend on each other in a circle.
    """
    by_name = {spec.name: spec for spec in specs}
    missing = [(spec.name, name) for spec in specs for name in spec.dependencies if name not in by_name]
    if missing:
        raise ConfigError(
            [
                f"{name}: depends on {dependency!r}, which is not there"
                f"{did_you_mean(dependency, by_name) if at < MAX_SUGGESTIONS else ''}"
                for at, (name, dependency) in enumerate(missing)
            ]
        )
    order: dict[str, RepresentationSpec] = {}
    path: dict[str, Iterator[str]] = {}  # what waits for its dependencies → those that were not looked at yet
    for spec in specs:
        if spec.name not in order:
            path[spec.name] = iter(spec.dependencies)
        while path:  # no recursion: a chain may be as long as the config
            last = next(reversed(path))
            dependency = next(path[last], None)
            if dependency is None:
                del path[last]
                order[last] = by_name[last]
            elif dependency in path:
                names = list(path)
                circle = [*names[names.index(dependency) :], dependency]
                raise ConfigError(f"representations depend on each other in a circle: {' → '.join(circle)}")
            elif dependency not in order:
                path[dependency] = iter(by_name[dependency].dependencies)
    return list(order.values())


def with_image_specs(specs: Sequence[RepresentationSpec], image_format: str | None = None) -> list[RepresentationSpec]:
    """Return the specs plus one `NAME.image` (jpg) or `NAME.image_png` for each that exports pictures.

    Args:
        specs: Specs of the config; `spec.images` asks for pictures of one.
        image_format: `jpg` or `png` for all of them, whatever each asks for.
    """
    result = list(specs)
    for spec in specs:
        wanted = image_format or spec.images
        if wanted is not None and spec.store:
            result.append(
                RepresentationSpec(
                    name=image_name(spec.name, wanted), type=IMAGE_TYPE, dependencies=(spec.name,), codec=wanted
                )
            )
    return result


def build_graph(
    specs: Sequence[RepresentationSpec],
    *,
    height: int,
    width: int,
    folders: Sequence[Path] = (),
    profile: str = "balanced",
    position: Callable[[str], str] | None = None,
) -> Graph:
    """Return the graph of `specs` for frames of (height, width) pixels.

    Args:
        specs: Representations, in any order.
        height: Rows of a decoded frame.
        width: Columns of a decoded frame.
        folders: Where relative `path/file.py:Class` types and data files start from; the first that has one counts.
        profile: Codec profile for those without a codec of their own.
        position: Name → where it stands in the config (`file:line`), for messages.

    Raises:
        ConfigError: With every mistake found: unknown types, wrong parameters, wrong dependencies, wrong codecs.
    """
    nodes: dict[str, Node] = {}
    mistakes: list[str] = []
    hints: list[str] = []
    broken: set[str] = set()
    for spec in topological_order(specs):
        if broken & set(spec.dependencies):
            broken.add(spec.name)
            continue
        try:
            nodes[spec.name] = _build_node(spec, nodes, height, width, folders, profile)
        except VrekitError as error:
            broken.add(spec.name)
            lines = error.mistakes if isinstance(error, ConfigError) else (error.message,)
            where = f"{position(spec.name)}: " if position is not None else ""
            mistakes += [f"{where}{spec.name}: {line.removeprefix(f'{spec.name}: ')}" for line in lines]
            if error.hint and error.hint not in hints:
                hints.append(error.hint)
    if mistakes:
        raise ConfigError(mistakes, hint="; ".join(hints) or None)
    return Graph(nodes)


def _build_node(
    spec: RepresentationSpec, nodes: Mapping[str, Node], height: int, width: int, folders: Sequence[Path], profile: str
) -> Node:
    parents = [nodes[name] for name in spec.dependencies]
    instance = _instance(spec, parents, folders)
    _check_inputs(spec, instance, parents)
    if not spec.store and not parents:
        raise UsageError("a virtual representation (store: false) needs dependencies to be computed from")
    if not spec.store and type(instance).uses_frames:
        raise UsageError(
            f"{spec.type} looks at the video's pixels, which are not there on read, so it cannot be virtual",
            hint="leave `store: false` away; a type of yours that needs its dependencies only sets uses_frames = False",
        )
    # A virtual node sees what the reader sees: its dependencies as they come back from storage.
    seen = {parent.name: parent.memory if spec.store else parent.stored for parent in parents}
    memory = _output_spec(spec, instance, height, width, seen)
    resized = resized_spec(memory, spec.output_size, spec.output_dtype, frame_size=(height, width))
    codec = _codec(spec, instance, resized, profile) if spec.store else None
    identity = {
        "type": spec.type,
        "version": instance.version,
        **_digests(spec, instance),
        "params": _all_parameters(instance, spec),
        "compute_dtype": spec.compute_dtype,
        "output_size": list(spec.output_size) if spec.output_size else None,
        "output_dtype": spec.output_dtype,
        "dependencies": {parent.name: parent.compute_digest for parent in parents},
    }
    return Node(
        spec=spec,
        instance=instance,
        memory=memory,
        resized=resized,
        stored=codec.decoded_spec(resized) if isinstance(codec, Codec) else resized,
        codec=codec,
        frame_size=(height, width),
        compute_identity=identity,
        compute_digest=digest(identity),
    )


def _codec(spec: RepresentationSpec, instance: Representation, resized: OutputSpec, profile: str) -> Codec | ClipCodec:
    clips = clip_codec(spec.codec)
    if clips is None:
        return codec_for(spec.codec, resized, store_as=spec.store_as, profile=profile)
    if spec.store_as:
        raise UsageError(f"store_as {spec.store_as!r} does not go together with the codec {clips.id!r}")
    clips.check_takes(resized)
    is_untouched = type(instance).is_source and spec.output_size is None and spec.output_dtype is None
    if clips.copies_source and not is_untouched:
        raise UsageError(
            f"codec {clips.id!r} without `encode` keeps the source's own packets, so it stores nothing but color/rgb "
            "in the source's size",
            hint=f"`codec: {{id: {clips.id}, encode: ffv1}}` stores any RGB pictures; h264, hevc and av1 lose detail",
        )
    return clips


def _output_spec(
    spec: RepresentationSpec, instance: Representation, height: int, width: int, seen: Mapping[str, OutputSpec]
) -> OutputSpec:
    with _blamed_on(spec, "output_spec"):
        output = instance.output_spec(height, width, seen)
        if not isinstance(output, OutputSpec):
            raise TypeError(f"it returned {type(output).__name__}, not an OutputSpec")
        np.dtype(np.str_ if output.dtype == "str" else output.dtype)
        return output


@contextmanager
def _blamed_on(spec: RepresentationSpec, method: str) -> Iterator[None]:
    """Turn a bug in a type, which may be the user's own, into a mistake in the config."""
    try:
        yield
    except VrekitError:
        raise
    except Exception as error:
        raise UsageError(
            f"{method} of {spec.type} failed: {type(error).__name__}: {error}",
            hint="`vrekit --debug …` shows where; docs/representations.md says what a type has to do",
        ) from error


def _instance(spec: RepresentationSpec, parents: Sequence[Node], folders: Sequence[Path]) -> Representation:
    if spec.type == IMAGE_TYPE:
        return Images(parents[0].instance, parents[0].memory)
    cls = representation_type(spec.type, relative_to=folders)
    with _blamed_on(spec, "__init__"):
        instance: Representation = build(cls, _with_paths_found(cls, spec.params, folders), spec.name)
    return instance


def _with_paths_found(
    cls: type[Representation], params: Mapping[str, Any], folders: Sequence[Path]
) -> Mapping[str, Any]:
    found = dict(params)
    for name in cls.path_parameters:
        value = params.get(name)
        if not isinstance(value, str):
            continue
        candidates = [folder / value for folder in folders]
        # of a pattern such as `depth/{frame}.npy` the folder must be there
        there = (path for path in candidates if path.exists() or ("{" in value and path.parent.exists()))
        found[name] = str(next(there, value))
    return found


_INPUTS_EXAMPLE = "`inputs = ((Kind.COLOR,),)` for one colour image"


def _check_inputs(spec: RepresentationSpec, instance: Representation, parents: Sequence[Node]) -> None:
    if problem := input_count_problem(type(instance), spec):
        own = f"a type of yours names the kinds it takes: {_INPUTS_EXAMPLE}; `inputs = None` takes any"
        raise UsageError(problem, hint=own if ":" in spec.type and not type(instance).inputs else None)
    accepted = type(instance).inputs
    if accepted is None:
        return
    for parent, kinds in zip(parents, accepted, strict=True):
        if parent.memory.kind not in kinds:
            raise UsageError(
                f"{spec.type} needs a dependency of kind {'|'.join(kinds)}, "
                f"but {parent.name!r} is of kind {parent.memory.kind}"
            )


def _all_parameters(instance: Representation, spec: RepresentationSpec) -> dict[str, Any]:
    # With defaults filled in: a default that changes later is then a changed config, not a silent mix.
    if dataclasses.is_dataclass(instance):
        names = [field.name for field in dataclasses.fields(instance) if field.init]
        values = {name: getattr(instance, name) for name in names}
    else:
        values = dict(spec.params)
    # as the config spells it: a dataset must not depend on where the config's folder lies
    values.update({name: spec.params[name] for name in type(instance).path_parameters if name in spec.params})
    return {name: _jsonable(value) for name, value in values.items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_jsonable(item) for item in value]
    return str(value)


def _digests(spec: RepresentationSpec, instance: Representation) -> dict[str, str]:
    digests = {}
    data = instance.data_digest()
    if data is not None:
        digests["data_digest"] = data
    source = inspect.getsourcefile(type(instance)) if ".py:" in spec.type else None
    if source:  # a user's own file has no version: its text decides
        digests["source_sha256"] = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]
    return digests
