"""What the tables have in common: types by annotation, and the conditions of partial indexes."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ARRAY, DateTime, Double, Integer, Numeric, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

OPEN = "state IN ('scheduled', 'queued', 'running', 'waiting', 'retrying')"
UNHAPPY = "state IN ('failed', 'cancelled', 'expired', 'dead')"
# Of the audit: what is no change of a task's state, and who came with an API key. Both are few.
AN_ACT = "action NOT LIKE 'task.%'"
A_PERSON = "actor LIKE 'key:%'"
# What a letter died of: its reason and what was said, without what differs from message to message.
# UUIDs, long hexadecimal words, and numbers with what is written inside them (times, addresses).
CAUSE = (
    "md5(reason || ' ' || regexp_replace(left(detail, 300),"
    r" '[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\m[0-9a-fA-F]{12,}\M"
    "|[0-9]+([.:-][0-9]+)*', '#', 'g'))"
)


class Base(DeclarativeBase):
    """Types by annotation: text, timestamps with a zone, JSON as jsonb, ids as text."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's own way
        str: Text(),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text()),
        int: Integer(),
        float: Double(),
        Decimal: Numeric(),
    }


def uuid_column(**options: Any) -> Any:
    """A UUID, as text in Python."""
    return mapped_column(Uuid(as_uuid=False), **options)
