"""What commands that only print do when their reader leaves."""

import signal


def end_with_reader() -> None:
    """End this process without a word once nobody reads what it prints, as `ls | head` does.

    Only for commands that write no file, or all of them before they print.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
