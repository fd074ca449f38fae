"""From a publisher's download to labelled segments and their index. Start at `prepare_set`.

`layouts` and `dcase` know the publishers' folders and names, `read` their file formats, `cut` the segments,
`expected` what a complete download holds; `run` drives them, `journal` remembers what is done.
"""

from fisher_bench.rmis.prepare.run import prepare_set

__all__ = ["prepare_set"]
