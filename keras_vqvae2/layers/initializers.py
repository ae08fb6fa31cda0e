import keras


def small_normal() -> keras.initializers.Initializer:
    """How the weights of transformers start: normal of standard deviation 0.02 (BERT, LlamaGen)."""
    return keras.initializers.RandomNormal(stddev=0.02)
