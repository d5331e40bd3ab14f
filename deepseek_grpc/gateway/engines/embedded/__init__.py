"""The embedded text engine: a small trigram model that works offline, at once and reproducibly.

From below: `tokens` (text to tokens), `corpus` (the frozen text), `relevance` (what a prompt is about), `sampling`
(from weights to a token), `model` (counts and candidates), `stops` (stop strings), `prompt` (what a request asks),
`generation` (one answer), `reasoning` (what is thought before it), `schema`, `arguments` and `tools` (calls), `turn`
(what is said in which order), `fim` (what is said between a prompt and a suffix) and `engine` (events on the event
loop).
"""

from deepseek_grpc.gateway.engines.embedded.engine import MODEL_ID, EmbeddedEngine

__all__ = ["MODEL_ID", "EmbeddedEngine"]
