"""The link between nodes: ``wire``, ``zap``, ``light``, ``full`` are pure; ``transport`` is the only door to ZeroMQ."""
