"""From scores to what a person reads: the RMIS table with its means and published rows, and plots.

Start at `write.write_report`. `rows` gathers scores, `published` what others measured, `plots` draws.
"""
