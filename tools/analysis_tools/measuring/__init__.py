"""Measurements of speed and memory against other implementations.

It runs on torch and timm alone; `hugging_face` needs transformers, `configs` and
`whole_path` need MMSegmentation and MMDetection.
"""
