"""The way in: a unix socket, one msgpack map per frame. ``wire`` is pure, ``server`` resident, ``client`` front end."""

SOCKET_NAME = "control"
"""The socket's name in the run directory."""
STATUS_NAME = "status"
"""The one beside it that tells what goes on and does nothing else, for those who only watch."""
