#!/usr/bin/env python3
"""What a server does with a model: embeds sentences with all-MiniLM-L6-v2, read from a directory by the libraries that
servers use.

embed.py DIRECTORY SENTENCE...      one line of JSON for each: its tokens and its embedding

The tokenizer is Hugging Face's, and so is the reader of safetensors, which maps the file into memory. The network itself,
a BERT of six layers, is written out here in numpy: frameworks that have it are larger than the model.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open
from tokenizers import Tokenizer


class Encoder:
    def __init__(self, directory):
        config = json.loads((directory / "config.json").read_text())
        self.layers = config["num_hidden_layers"]
        self.heads = config["num_attention_heads"]
        self.epsilon = config["layer_norm_eps"]
        with safe_open(directory / "model.safetensors", framework="numpy") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}

    def linear(self, name, x):
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def norm(self, name, x):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon)
        return x * self.tensors[f"{name}.weight"] + self.tensors[f"{name}.bias"]

    def embeddings(self, tokens):
        x = self.tensors["embeddings.word_embeddings.weight"][tokens]
        x = x + self.tensors["embeddings.position_embeddings.weight"][: len(tokens)]
        return self.norm("embeddings.LayerNorm", x + self.tensors["embeddings.token_type_embeddings.weight"][0])

    def attention(self, name, x):
        def split(part):
            return self.linear(f"{name}.self.{part}", x).reshape(len(x), self.heads, -1).swapaxes(0, 1)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores = scores / scores.sum(axis=-1, keepdims=True)
        return self.norm(
            f"{name}.output.LayerNorm",
            x + self.linear(f"{name}.output.dense", (scores @ value).swapaxes(0, 1).reshape(len(x), -1)),
        )

    def layer(self, name, x):
        x = self.attention(f"{name}.attention", x)
        inner = self.linear(f"{name}.intermediate.dense", x)
        inner = inner * 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float32])(inner / math.sqrt(2)))
        return self.norm(f"{name}.output.LayerNorm", x + self.linear(f"{name}.output.dense", inner))

    def __call__(self, tokens):
        """The sentence's embedding: the mean over its tokens, of length 1."""
        x = self.embeddings(tokens)
        for number in range(self.layers):
            x = self.layer(f"encoder.layer.{number}", x)
        mean = x.mean(axis=0)
        return mean / np.linalg.norm(mean)


def main(directory, *sentences):
    directory = Path(directory)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    encoder = Encoder(directory)
    for sentence in sentences:
        tokens = tokenizer.encode(sentence).ids
        print(json.dumps({"tokens": tokens, "embedding": [round(float(x), 6) for x in encoder(tokens)]}))


main(*sys.argv[1:])
