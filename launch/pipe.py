"""What commands that only print do when their reader leaves."""

import signal


def end_with_reader() -> None:
    """End this process without a word once nobody reads what it prints, as `ls | head` does.

    Only for commands that read: whoever writes files must not be ended in between.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
