from datetime import datetime, tzinfo

from .base import BaseTrigger

class CronTrigger(BaseTrigger):
    def __init__(
        self,
        *,
        month: str | None = None,
        day: str | None = None,
        day_of_week: str | None = None,
        hour: str | None = None,
        minute: str | None = None,
        end_date: datetime | None = None,
        timezone: tzinfo | None = None,
    ) -> None: ...
