"""An embedding and a tanh RNN on movie reviews: text in, the probabilities of negative and positive out."""

from __future__ import annotations

import torch
from torch import nn

from tritium.repository import Published, Repository

from ._registry import Progress
from ._sentiment import export_sentiment, last_state, word_embedding


class SentimentRnn(nn.Module):
    """The state at the last word decides."""

    def __init__(self, ids: int) -> None:
        super().__init__()
        self.embedding = word_embedding(ids, 64)
        self.dropout = nn.Dropout(0.5)
        self.rnn = nn.RNN(64, 64, batch_first=True)
        self.head = nn.Linear(64, 2)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """From (rows, length) ids to (rows, 2) logits."""
        states, _ = self.rnn(self.dropout(self.embedding(token_ids)))
        logits: torch.Tensor = self.head(self.dropout(last_state(states, token_ids)))
        return logits


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out sentences, publish."""
    return export_sentiment(SentimentRnn, name="sentiment_rnn", repository=repository, recipe=recipe, progress=progress)
