"""What an encoder is trained to do: compare, preserve, predict what is masked. Start at `objective.Objective`."""
