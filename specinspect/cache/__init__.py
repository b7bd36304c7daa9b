"""Results that were computed before, kept on disk under a key of everything they depend on.

An entry is one result: of a layer, or of a block. Its key holds the bytes of every tensor that was read, all
that is known of the layer, the settings, the device, and the program itself down to its sources; neither the
checkpoint's path nor its name. So one changed layer recomputes one layer, and a run that was killed goes on
where it was.

One file per entry rather than one per checkpoint or a database: an entry appears whole or not at all
(written beside, then renamed), several processes need no lock, damage costs one entry, and room is made by
removing the files that were not used for longest. `tests/benchmarks/bench_cache.py` measures what that
costs. The worst case is thousands of layers of 32 × 32 with nothing but their weights: writing an entry
takes about as long as computing it, and so does reading it. No layer is left out even so, since a run whose
results are all known loads no torch, which takes longer than everything else in it.

Nothing is trusted that could be wrong:

- The tensors' bytes are hashed in every run. Size and modification time of a file would be faster, and can
  both stay the same while its bytes change.
- An entry is JSON with a checksum, decoded by the type hints of the result's dataclass; whatever is not
  exactly as it should be is computed anew. Nothing is unpickled.
- A result is kept only if the tensors' bytes are the same after it was computed as before.
- A directory that others may write to is not used.
"""
