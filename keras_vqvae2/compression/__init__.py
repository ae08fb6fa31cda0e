from keras_vqvae2.compression.compress import (
    compress,
    compress_codes,
    decompress,
    decompress_codes,
)

__all__ = ["compress", "compress_codes", "decompress", "decompress_codes"]
