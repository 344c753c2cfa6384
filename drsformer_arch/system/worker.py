"""Worker processes that decode pictures, as `prepare` and `evaluate` start them."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading

import cv2

from drsformer_arch.system.errors import is_debugging


def set_up() -> None:
    """Obey the main process, end with it, and use one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides
    cv2.setNumThreads(1)  # the workers are the threads
    # Decoders of picture formats print their own complaints; ours name the file.
    if not is_debugging():
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
    main_process = multiprocessing.parent_process()
    assert main_process is not None

    def end_with_the_main_process() -> None:
        multiprocessing.connection.wait([main_process.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_the_main_process, daemon=True).start()
