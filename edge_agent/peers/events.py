"""What happens to a light node, and what it does about it. Pure."""

from __future__ import annotations

from ..records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .evidence import Evidence
    from .inquiries import Inquiry
    from .wire import Message


class Tick(Record):
    """Time has passed."""


class Heard(Record):
    """Bytes came from the full peer with this index."""

    peer: int
    data: bytes


class Asked(Record):
    """Somebody on this machine wants an answer; it comes as Done or Failed."""

    inquiry: Inquiry


class Open(Record):
    """Make a connection to the peer."""

    peer: int


class Close(Record):
    """Drop the connection to the peer."""

    peer: int


class Send(Record):
    """Send these bytes on the peer's connection."""

    peer: int
    data: bytes


class Save(Record):
    """Keep this head on disk, before any later action."""

    origin: str
    note: bytes


class Keep(Record):
    """Keep this evidence on disk; ``gone`` is the name of what it replaces, or ''."""

    evidence: Evidence
    gone: str


class Done(Record):
    """The answer to a question, and the peer it is from."""

    token: object
    result: Message
    peer: int


class Failed(Record):
    """There is no answer."""

    token: object
    code: str
    why: str


class Note(Record):
    """Something for the log. ``bad``: somebody should look."""

    text: str
    bad: bool = False


Event = Tick | Heard | Asked
Action = Open | Close | Send | Save | Keep | Done | Failed | Note


class Refusal(Record):
    """Something that was not believed."""

    at: float  # on the clock given to ``step``
    endpoint: str
    code: str
    why: str
