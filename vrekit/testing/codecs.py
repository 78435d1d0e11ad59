"""What every codec must do: a plug-in's tests inherit it."""

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vrekit.codecs.base import Codec
from vrekit.codecs.registry import codec_from_config
from vrekit.core.errors import CodecError
from vrekit.testing.assertions import raises


class CodecContract:
    """Tests of one codec; pytest runs those of a subclass.

    Attributes:
        is_bitwise: Whether every bit comes back; a codec that keeps less states its bound in `check`.

    Example:
        >>> class TestMine(CodecContract):
        ...     def make_codec(self):
        ...         return Mine(level=3)
        ...
        ...     def make_arrays(self, seed=0):
        ...         shapes = [(0, 5), (1, 1), (3, 4), (13, 17)]
        ...         return [np.random.default_rng(seed).random(shape, np.float32) for shape in shapes]
    """

    is_bitwise: ClassVar[bool] = True

    @abstractmethod
    def make_codec(self) -> Codec:
        """Return the codec with some options."""

    @abstractmethod
    def make_arrays(self, seed: int = 0) -> Sequence[NDArray[Any]]:
        """Return arrays of shapes and dtypes that it takes, at least four.

        The last four are not empty, and the very last has two axes or more and more than 20 elements. The same seed
        gives the same arrays.
        """

    def check(self, original: NDArray[Any], decoded: NDArray[Any]) -> None:
        """Assert that what came back is within the bound that the codec states."""
        assert not self.is_bitwise or decoded.tobytes() == original.tobytes()

    def from_config(self, config: Mapping[str, Any]) -> Codec:
        """Return the codec of a stored config; by default as a reader does, for which it must be registered."""
        return codec_from_config(config)

    def test_round_trip_within_the_stated_bound_for_all_shapes_and_dtypes(self) -> None:
        codec = self.make_codec()
        for array in self.make_arrays():
            before = array.copy()
            data = codec.encode(array)
            assert type(data) is bytes
            decoded = codec.decode(data, dtype=array.dtype, shape=array.shape)
            assert (decoded.dtype, decoded.shape) == codec.decoded_layout(array.dtype, array.shape)
            assert decoded.flags.writeable
            assert decoded.flags.c_contiguous
            assert len(data) <= codec.max_encoded_size(decoded.dtype, decoded.shape)
            self.check(array, decoded)
            assert array.tobytes() == before.tobytes(), "encode changed its input"

    def test_stored_config_alone_decodes(self) -> None:
        codec = self.make_codec()
        stored = json.loads(json.dumps(codec.config()))
        again = self.from_config(stored)
        assert again == codec
        assert again.config() == codec.config()
        assert (again.id, again.suffix) == (codec.id, codec.suffix)
        array = self.make_arrays()[-1]
        one, two = (c.decode(codec.encode(array), dtype=array.dtype, shape=array.shape) for c in (codec, again))
        assert one.tobytes() == two.tobytes()

    def test_decodes_into_given_memory_from_any_buffer(self) -> None:
        codec = self.make_codec()
        for array in self.make_arrays()[-4:]:
            data = codec.encode(array)
            expected = codec.decode(data, dtype=array.dtype, shape=array.shape)
            batch = np.zeros((3, *array.shape), array.dtype)
            for buffer in (data, bytearray(data), memoryview(data)):
                batch[:] = 0
                out = batch[1, ...]
                assert codec.decode(buffer, dtype=array.dtype, shape=array.shape, out=out) is out
                assert out.tobytes() == expected.tobytes()
                assert not batch[0].any()
                assert not batch[2].any()

    def test_takes_arrays_of_any_memory_order(self) -> None:
        codec = self.make_codec()
        array = self.make_arrays()[-1]
        expected = codec.encode(array)
        assert codec.encode(np.asfortranarray(array)) == expected
        wide = np.repeat(array, 2, axis=-1)[..., ::2]
        assert codec.encode(wide) == expected
        array.flags.writeable = False
        assert codec.encode(array) == expected

    def test_refuses_out_of_another_layout(self) -> None:
        codec = self.make_codec()
        array = next(a for a in reversed(self.make_arrays()) if a.ndim > 1 and a.size)
        data = codec.encode(array)
        other = np.dtype(np.complex64)
        read_only = np.empty(array.shape, array.dtype)
        read_only.flags.writeable = False
        wrong = (
            np.empty(array.shape, other),
            np.empty((*array.shape, 1), array.dtype),
            np.empty(array.shape[::-1], array.dtype).T if array.shape != array.shape[::-1] else read_only,
            read_only,
        )
        for out in wrong:
            if (out.dtype, out.shape) == (array.dtype, array.shape) and out.flags.c_contiguous and out.flags.writeable:
                continue
            with raises(CodecError, match="out is"):
                codec.decode(data, dtype=array.dtype, shape=array.shape, out=out)

    def test_refuses_bytes_of_another_shape_or_dtype(self) -> None:
        codec = self.make_codec()
        array = next(a for a in reversed(self.make_arrays()) if a.size > 20)
        data = codec.encode(array)
        for other in (self.make_arrays()[0], next(a for a in self.make_arrays() if 0 < a.size < array.size)):
            if other.dtype == array.dtype and other.size != array.size:
                with raises(CodecError):
                    codec.decode(data, dtype=array.dtype, shape=other.shape)
        if self.is_bitwise:
            wider = np.dtype(np.float64) if array.dtype != np.float64 else np.dtype(np.float32)
            with raises(CodecError):
                codec.decode(data, dtype=wider, shape=array.shape)

    def test_refuses_arrays_it_cannot_hold(self) -> None:
        with raises(CodecError):
            self.make_codec().encode(np.array(["text"]))
        with raises(CodecError):
            self.make_codec().encode(np.array([object()]))

    def test_one_codec_serves_many_threads(self) -> None:
        codec = self.make_codec()
        samples = [a for seed in range(3) for a in self.make_arrays(seed)[-3:]]
        encoded = [codec.encode(array) for array in samples]
        expected = [
            codec.decode(d, dtype=a.dtype, shape=a.shape).tobytes() for d, a in zip(encoded, samples, strict=True)
        ]

        def work(at: int) -> bool:
            array = samples[at % len(samples)]
            data = codec.encode(array)
            decoded = codec.decode(data, dtype=array.dtype, shape=array.shape)
            return data == encoded[at % len(samples)] and decoded.tobytes() == expected[at % len(samples)]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(64)))
