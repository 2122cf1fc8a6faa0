"""Rows of text or images become batches of arrays; never imports torch.

`source` finds the files, `readers` streams rows out of them, `columns` and `labels` work out what
the rows mean, `dataset` puts the three together and refuses what does not fit, `encode` turns
texts into token ids on disk, and `batches` pads a handful of them into arrays. `images` opens image
files, and `pixels` keeps on disk what they hold.
"""
