"""The link between nodes: ``wire``, ``zap``, ``light`` and ``full`` are pure; ``transport`` is the only door to ZeroMQ."""
