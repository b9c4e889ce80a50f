from collections.abc import Callable, Iterator
from typing import Any

class Unpacker:
    def __init__(
        self,
        file_like: Any = ...,
        *,
        read_size: int = ...,
        use_list: bool = ...,
        raw: bool = ...,
        strict_map_key: bool = ...,
        max_buffer_size: int = ...,
        max_str_len: int = ...,
        max_bin_len: int = ...,
        max_array_len: int = ...,
        max_map_len: int = ...,
        max_ext_len: int = ...,
    ) -> None: ...
    def feed(self, data: bytes | bytearray | memoryview) -> None: ...
    def unpack(self) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...

class UnpackException(Exception): ...  # noqa: N818 - its name there
class OutOfData(UnpackException): ...

def packb(o: Any, *, use_bin_type: bool = ..., strict_types: bool = ..., default: Any = ...) -> bytes: ...
def unpackb(
    packed: bytes | bytearray | memoryview,
    *,
    use_list: bool = ...,
    raw: bool = ...,
    strict_map_key: bool = ...,
    ext_hook: Callable[[int, bytes], Any] = ...,
    max_str_len: int = ...,
    max_bin_len: int = ...,
    max_array_len: int = ...,
    max_map_len: int = ...,
    max_ext_len: int = ...,
) -> Any: ...
