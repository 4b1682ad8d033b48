"""Exercise 3: gigabytes of four-bit weights.

Write ``gigabytes(parameters, block=64, double_quant=True, second_block=256)``: the size of NF4
weights in gigabytes (10**9 bytes). Every ``block`` weights share one scale of 32 bits. With double
quantization the scales themselves are stored in 8 bits, and every ``second_block`` of them share
one number of 32 bits (Dettmers et al. 2023, section 3).
"""


def gigabytes(parameters, block=64, double_quant=True, second_block=256):
    raise NotImplementedError("write gigabytes() in this file")
