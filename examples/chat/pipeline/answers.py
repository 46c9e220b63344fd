"""What the pipeline answers by itself: simple questions, before a person has to look at them."""
import re

ANSWERS = [
    (r"\b(opening|office) hours\b|\bwhen .*\bopen\b", "We are here from 8 to 20 o'clock on working days."),
    (r"\b(price|cost|how much)\b", "The first ten conversations of a month are free; then it is 2 euros each."),
    (r"\b(forgot|reset|lost)\b.*\bpassword\b|\bpassword\b.*\b(forgot|reset|lost)\b",
     "You can set a new password under Settings, Account. If that does not work, an assistant helps."),
]
COMPILED = [(re.compile(pattern, re.IGNORECASE), text) for pattern, text in ANSWERS]


def answer(text):
    """The answer to a simple question, or None."""
    for pattern, reply in COMPILED:
        if pattern.search(text):
            return reply
    return None
