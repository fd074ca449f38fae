"""Real recordings for pre-training: folders and shards of any rate, cut into sub-bands.

Start at `find` (what is there). `crop_pairs` gives pairs for contrastive training, `batches.loader` batches for
self-distillation (it imports torch, which is why it is not a name of this package).
"""

from fisher_train.recordings.find import Corpus, find
from fisher_train.recordings.pairs import crop_pairs
from fisher_train.recordings.recording import Recording

__all__ = ["Corpus", "Recording", "crop_pairs", "find"]
