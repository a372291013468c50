"""The language-model server and its client: token ids of a prompt go in, sampled continuations come out."""
