"""`python -m spatialnet_edge` is `spatialnet-edge`; `torchrun -m spatialnet_edge` starts it several times."""

from spatialnet_edge.cli.app import main

main()
