"""Two encoder layers of self-attention on movie reviews: text in, the probabilities of negative and positive out."""

from __future__ import annotations

import torch
from torch import nn

from tritium.repository import Published, Repository

from ._registry import Progress
from ._sentiment import MAX_LENGTH, export_sentiment, real, word_embedding


class SentimentTransformer(nn.Module):
    """Embedding and learned positions → two encoder layers → the mean of the words → 2."""

    def __init__(self, ids: int, size: int = 32) -> None:
        super().__init__()
        self.embedding = word_embedding(ids, size)
        self.positions = nn.Embedding(MAX_LENGTH, size)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.dropout = nn.Dropout(0.3)
        # Norms first: it learns without a warm-up of the learning rate. Nested tensors are not for export.
        layer = nn.TransformerEncoderLayer(size, 4, 2 * size, dropout=0.2, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.head = nn.Linear(size, 2)

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """From (rows, length) ids, of at most 40 words, to (rows, 2) logits."""
        words = real(token_ids)
        # The clamp tells the exporter that any length is allowed; the tokenizer gives none that it would cut.
        places = torch.arange(token_ids.shape[1]).clamp(max=MAX_LENGTH - 1)
        embedded = self.dropout(self.embedding(token_ids) + self.positions(places))
        # The first place is never hidden: in a row without a word, attention would have nothing to look at.
        encoded = self.encoder(embedded, src_key_padding_mask=~(words | (places == 0)))
        weight = words[:, :, None].to(encoded.dtype)
        mean = (encoded * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        logits: torch.Tensor = self.head(self.dropout(mean))
        return logits


def export(repository: Repository, recipe: str, progress: Progress) -> Published:
    """Train, measure on the held-out sentences, publish."""
    return export_sentiment(
        SentimentTransformer,
        name="sentiment_transformer",
        repository=repository,
        recipe=recipe,
        progress=progress,
    )
