"""Measuring speed and memory against others that do the same.

It runs on torch and timm alone; `hugging_face` needs transformers, `configs` and
`whole_path` need MMSegmentation and MMDetection.
"""
