"""Where the ranks of a test meet, as torchrun arranges it."""

import torch.distributed as dist


class Rendezvous:
    """A store that this process holds while the ranks live, on a port that it has bound itself.

    A port that was merely free a moment ago may be another's when a rank binds it seconds later.
    """

    def __init__(self) -> None:
        self._store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    @property
    def variables(self) -> dict[str, str]:
        """The environment by which a rank finds the store."""
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port)}
        return address | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
