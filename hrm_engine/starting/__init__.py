"""Where a training begins: a base model and its tokenizer, the weights of a bundle, the network below an expert."""
