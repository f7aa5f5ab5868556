"""The plain reference: what the library computes, as one writes it from the papers with the usual libraries.

Float32, NCHW, loops over images and slots, no thought of speed. It is what the ratios are against, and the oracle of
`tests/benchmarks/test_reference.py`.
"""
