from collections.abc import Iterator, Mapping

class Sample:
    name: str
    labels: Mapping[str, str]
    value: float

class Metric:
    name: str
    type: str
    documentation: str
    samples: list[Sample]

def text_string_to_metric_families(text: str) -> Iterator[Metric]: ...
