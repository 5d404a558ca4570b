"""`Pool` to and from the payloads of the protocol: the only place where the two meet.

What the wire asks for, and a `Pool` does not, is done here:

- A score lies strictly between 0 and 1: 0 is sent as 1e-300 and 1 as the largest double below 1, which are 0 and 1
  again in float32.
- `probabilities` are one distribution over the outcomes: sigmoids become one by `scores.class_distribution`, with
  "none" as the last outcome. What comes in is therefore always `softmax`.
- A frame without boxes takes part in a diversity stage by its own embedding. It is sent as one box of score 1 and
  category -1 that carries the frame's embedding, and is read back as a frame without boxes.
- float32 columns survive bit for bit. A number is written with as few digits as float32 needs to know it again.

Payloads (`pool_to_payloads`) are for people and small pools. JSON for the network is written straight from the columns
(`predictions_json`, `embeddings_json`), with no object a box, a slice of frames at a time.
"""

from cval_torch.service.codec.decode import Vectors, pool_from_payloads, pool_from_vectors
from cval_torch.service.codec.encode import (
    EmbeddingsBody,
    PayloadBatch,
    bodies_of,
    embeddings_json,
    one_width,
    pool_to_payloads,
    predictions_json,
    whole_frames,
    wire_weights,
)
from cval_torch.service.codec.gathering import GatheredFrames

__all__ = [
    "EmbeddingsBody",
    "GatheredFrames",
    "PayloadBatch",
    "Vectors",
    "bodies_of",
    "embeddings_json",
    "one_width",
    "pool_from_payloads",
    "pool_from_vectors",
    "pool_to_payloads",
    "predictions_json",
    "whole_frames",
    "wire_weights",
]
