"""What must not be shown: the password in a database's URL."""

import re


def masked(text: str) -> str:
    """One word of a command line, with *** in place of the password if it is a URL that holds one.

    The word may be malformed, as a URL is whose password was not escaped: everything up to the last @ is hidden then.
    """
    text = re.sub(r"(://[^:/]*):.*@", r"\1:***@", text, flags=re.DOTALL)
    return re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1***", text)
