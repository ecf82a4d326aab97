"""From files to batches: layouts, label ids, images, domains, crops, class statistics and rare class sampling.

May import runtime.
"""
