"""The way in: a unix socket, one msgpack map per frame. ``wire`` is pure, ``server`` resident, ``client`` front end."""

SOCKET_NAME = "control"
"""The socket's name in the run directory."""
