"""Results of a batch as payloads and metadata rows, or as frames of clips. Runs in worker threads."""

import time
from dataclasses import replace

import numpy as np

from vrekit.catalog.cells import Payload
from vrekit.codecs.base import ClipCodec, Codec
from vrekit.compute.processor import BatchProcessor, Computed, reason_of
from vrekit.core.schema import SampleRow
from vrekit.engine.clip_checks import ClipFrame, pixels_checksum


class Encoder:
    """Encodes what a processor computed; several threads may use it at once."""

    def __init__(self, processor: BatchProcessor) -> None:
        self._processor = processor
        self._graph = processor.graph

    def encode(self, name: str, computed: Computed, frame: int, row: SampleRow, suffix: str = "") -> Payload:
        """Return the payload of one frame; a frame that failed, or that its codec refuses, is a failed row.

        Args:
            name: Representation.
            computed: Its result for the batch.
            frame: Frame number.
            row: Columns that do not depend on the result.
            suffix: File name ending of its payloads.
        """
        node = self._graph.nodes[name]
        codec = node.codec
        if not isinstance(codec, Codec):
            raise TypeError(f"{name} is virtual or stored in clips, and cannot be encoded frame by frame")
        if frame not in computed:
            return Payload(replace(row, status="failed", error=computed.errors.get(frame, "not computed")))
        started = time.perf_counter()
        try:
            array = self._processor.stored_form(name, computed, frame)
            data = codec.encode(array)
        except Exception as error:
            return Payload(replace(row, status="failed", error=reason_of(error)))
        dtype, shape = codec.decoded_layout(array.dtype, array.shape)
        done = replace(
            row,
            valid=computed.is_valid(frame),
            encode_seconds=time.perf_counter() - started,
            codec=codec.id,
            dtype="str" if dtype.kind == "U" else dtype.name,
            shape=tuple(shape),
            raw_bytes=int(np.prod(shape, dtype=np.int64)) * dtype.itemsize,
        )
        return Payload(done, suffix, data)

    def clip_frame(self, name: str, computed: Computed, frame: int, row: SampleRow, *, by_decoder: bool) -> ClipFrame:
        """Return one frame of a representation that is stored in clips; arguments as for `encode`.

        Args:
            name: Representation.
            computed: Its result for the batch.
            frame: Frame number.
            row: Columns that do not depend on the result.
            by_decoder: Whether the source's frame did not decode.
        """
        codec = self._graph.nodes[name].codec
        if not isinstance(codec, ClipCodec):
            raise TypeError(f"{name} is not stored in clips")
        reason = computed.errors.get(frame, "not computed")
        if frame in computed:
            try:
                array = self._processor.stored_form(name, computed, frame)
                checksum = pixels_checksum(array)
            except Exception as error:
                reason = reason_of(error)
            else:
                done = replace(
                    row,
                    valid=computed.is_valid(frame),
                    codec=codec.id,
                    dtype=array.dtype.name,
                    shape=array.shape,
                    raw_bytes=array.nbytes,
                )
                return ClipFrame(done, checksum, None if codec.copies_source else array)
        return ClipFrame(replace(row, status="failed", error=reason), by_decoder=by_decoder)
