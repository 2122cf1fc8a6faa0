"""Tests of compressor/data; a package, so that file names may repeat those of other rooms."""
