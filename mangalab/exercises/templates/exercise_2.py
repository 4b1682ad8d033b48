"""Exercise 2: count and merge a LoRA.

Write ``lora(weight, a, b, alpha)``. NumPy arrays: ``weight`` (out, in), ``a`` (r, in), ``b`` (out,
r). Return a dict:

    parameters  how many numbers the adapter trains
    merged      the (out, in) weight that answers like base and adapter together (Hu et al. 2021)

Leave ``weight`` as it was.
"""


def lora(weight, a, b, alpha):
    raise NotImplementedError("write lora() in this file")
