"""Exchange of weights with other implementations: equal logits, and every bit back again.

``sapient-hrm`` and ``trm`` are checkpoints of the reference implementations, ``hf`` is a folder of transformers or a
model of its hub.
"""
