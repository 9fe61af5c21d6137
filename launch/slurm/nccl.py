"""NCCL settings of jobs on GPUs, each with its reason; ``cluster.slurm.env`` overrides them."""

# name, value, reason
NCCL_SETTINGS: tuple[tuple[str, str, str], ...] = (
    (
        "NCCL_DEBUG",
        "WARN",
        "says why a connection failed, and nothing else; INFO writes a page a rank",
    ),
    (
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        "1",
        "a collective that failed or ran into its time limit ends the process instead of hanging",
    ),
    (
        "NCCL_IB_TIMEOUT",
        "22",
        "4 us x 2^22 = 17 s a try: a flapping InfiniBand link recovers within it, 1 s (20) it does "
        "not",
    ),
    (
        "NCCL_IB_RETRY_CNT",
        "7",
        "the most tries; beyond them the link is broken and the run is better started again",
    ),
    (
        "TORCH_NCCL_DUMP_ON_TIMEOUT",
        "1",
        "writes which rank was in which collective when one timed out",
    ),
    (
        "TORCH_NCCL_TRACE_BUFFER_SIZE",
        "2000",
        "how many collectives that dump remembers: a few steps of a large layout",
    ),
)
