from collections.abc import Iterator

from ..parser import Metric

def text_string_to_metric_families(text: str) -> Iterator[Metric]: ...
