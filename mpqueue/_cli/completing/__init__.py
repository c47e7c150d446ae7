"""What a shell completes: see `mpqueue._cli.completing.completion`."""
