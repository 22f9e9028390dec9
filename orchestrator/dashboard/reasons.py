"""Why a message was set aside, in words, and what to do about it."""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.errors import DeadReason


@dataclass(frozen=True, slots=True)
class Explained:
    """A reason as people say it."""

    title: str
    said: str
    todo: str


REASONS: Mapping[str, Explained] = {
    DeadReason.MALFORMED: Explained(
        "Not readable",
        "The entry is not a message: a field is missing, or is not what it should be.",
        "Correct the program that wrote it; the detail names the field. It cannot be redriven as it"
        " stands: drop it, and let the program send it again.",
    ),
    DeadReason.TOO_LARGE: Explained(
        "Too large",
        "The message is over the size limit.",
        "Store what is large elsewhere and pass a reference, or raise AURORA_MAX_PAYLOAD. Then drop"
        " this and submit the work anew: a letter keeps only the beginning of a long field.",
    ),
    DeadReason.UNKNOWN_AGENT: Explained(
        "No such agent",
        "No agent is registered under this name where the message was read.",
        "Deploy the agent to the workers of its queue and redrive. If the name was misspelt, drop"
        " this and submit the work under the right one.",
    ),
    DeadReason.INVALID_INPUT: Explained(
        "Input refused",
        "The input does not fit what the agent takes.",
        "If the agent's input type was wrong, deploy the correction and redrive. If the input was"
        " wrong, correct its sender, drop this and submit the work anew.",
    ),
    DeadReason.TASK_ID_CONFLICT: Explained(
        "Two contents under one id",
        "A task of this id exists with another agent or input; the first one stands.",
        "New work needs a new id, or another idempotency key. Redriving gives it a new id; drop it"
        " if the task that stands is the right one.",
    ),
    DeadReason.CRASHED: Explained(
        "Worker died",
        "Every process that ran the task ended without a word, as often as is allowed.",
        "The detail has the signal or the last sign of life: memory, a native crash, a loop. Mend"
        " that, then redrive.",
    ),
    DeadReason.UNRECORDABLE: Explained(
        "Not recordable",
        "Postgres refuses its content.",
        "The detail has Postgres' own words. Correct the sender; redrive only after what refused it"
        " is mended.",
    ),
    DeadReason.LOST: Explained(
        "Message gone",
        "Something removed the task's message from its stream before it was recorded.",
        "Nothing of it is left to redrive. Find out who trims or deletes the streams, drop this and"
        " submit the work anew.",
    ),
    DeadReason.RULE_FAILED: Explained(
        "Rule raised",
        "A rule raised an error on this alert; the other alerts went on.",
        "The log of the alert handler has the stack. Correct the rule, then redrive: the alert is"
        " judged again.",
    ),
    DeadReason.NO_RULE: Explained(
        "No rule fits",
        "No rule says what to do with this alert.",
        "Add a rule and redrive, or drop it.",
    ),
}
UNKNOWN = Explained("Set aside", "A version that knows more reasons wrote this.", "See the detail.")


def explained(reason: str) -> Explained:
    """The reason in words; also one that a later version has written."""
    return REASONS.get(reason, UNKNOWN)
