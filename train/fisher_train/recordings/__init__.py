"""Real recordings for pre-training: folders and shards of any rate, cut into sub-bands.

Start at `find` (what is there) and `crop_pairs` (batches for contrastive training).
"""

from fisher_train.recordings.find import Corpus, find
from fisher_train.recordings.pairs import crop_pairs
from fisher_train.recordings.recording import Recording

__all__ = ["Corpus", "Recording", "crop_pairs", "find"]
