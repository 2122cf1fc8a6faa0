"""`python -m compressor`, and what `accelerate launch -m compressor` runs."""

from compressor.cli import main

main()
